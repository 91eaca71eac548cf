/* What the models of these tests share. Each brings DESCRIPTION and `run`, and ends with EXPORT. */
#ifndef MODEL_H
#define MODEL_H

#include "baton_model.h"

#include <string.h>

static inline int32_t write_text(baton_text *text, const char *content) {
    text->size = strlen(content);
    if (text->size > text->capacity) return BATON_MORE;
    memcpy(text->data, content, text->size);
    return BATON_OK;
}

/* A failure of the model, with its reason. */
static inline int32_t fails(baton_text *error, const char *reason) {
    write_text(error, reason);
    return BATON_FAILED;
}

/* The output becomes a vector of `count` elements of `width` bytes. Is there room for them? */
static inline int make_vector(baton_output *output, int64_t count, uint64_t width) {
    output->rank = 1;
    output->shape[0] = count;
    output->size = (uint64_t)count * width;
    return output->size <= output->capacity;
}

static int32_t create(void **model, baton_text *error) {
    (void)error;
    *model = NULL;
    return BATON_OK;
}

static void destroy(void *model) { (void)model; }

#define EXPORT(build)                                                                                                  \
    static int32_t describe(void *model, baton_text *json) {                                                           \
        (void)model;                                                                                                   \
        return write_text(json, DESCRIPTION);                                                                          \
    }                                                                                                                  \
    BATON_MODEL(build, 0, create, describe, run, destroy)

#endif
