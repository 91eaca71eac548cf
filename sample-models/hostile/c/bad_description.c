/* Describes itself wrongly: VARIANT is the name of one of these functions. */
#include "hostile.h"

#include <stdio.h>
#include <stdlib.h>

#define TENSOR(name, datatype) "{\"name\":\"" name "\",\"datatype\":\"" datatype "\",\"shape\":[-1]}"
#define ONE(name, datatype) "{\"inputs\":[" TENSOR(name, datatype) "],\"outputs\":[" TENSOR("y", "FP32") "]}"

static inline int32_t not_json(baton_text *json) { return write_text(json, "x FP32, y FP32"); }

static inline int32_t datatype(baton_text *json) { return write_text(json, ONE("x", "FP33")); }

static inline int32_t twice(baton_text *json) {
    return write_text(json, "{\"inputs\":[" TENSOR("x", "FP32") "," TENSOR("x", "FP32") "],\"outputs\":[" TENSOR(
                                "y", "FP32") "]}");
}

static inline int32_t not_utf8(baton_text *json) { return write_text(json, ONE("\xFF\xFE", "FP32")); }

static inline int32_t no_outputs(baton_text *json) {
    return write_text(json, "{\"inputs\":[" TENSOR("x", "FP32") "],\"outputs\":[]}");
}

static inline int32_t shape(baton_text *json) {
    return write_text(json, "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-7,9223372036854775807]}],"
                            "\"outputs\":[" TENSOR("y", "FP32") "]}");
}

/* 10,000 inputs. */
static inline int32_t many(baton_text *json) {
    enum { INPUTS = 10000, LONGEST = 64 };
    char *text = malloc((size_t)INPUTS * LONGEST), *end = text;
    if (text == NULL) return BATON_FAILED;
    for (int i = 0; i < INPUTS; i++) {
        end += sprintf(end, "%s{\"name\":\"x%d\",\"datatype\":\"FP32\",\"shape\":[-1]}", i ? "," : "{\"inputs\":[", i);
    }
    sprintf(end, "],\"outputs\":[" TENSOR("y", "FP32") "]}");
    int32_t status = write_text(json, text);
    free(text);
    return status;
}

/* However large the buffer is, it is too small. */
static inline int32_t endless(baton_text *json) {
    json->size = 2 * json->capacity + 1;
    return BATON_MORE;
}

static inline int32_t size(baton_text *json) {
    json->size = json->capacity + (1 << 20);
    return BATON_OK;
}

static inline int32_t crash(baton_text *json) {
    (void)json;
    abort();
}

static int32_t describe_badly(void *model, baton_text *json) {
    (void)model;
    return VARIANT(json);
}

BATON_MODEL("hostile bad_description", 0, create, describe_badly, run_well, destroy);
