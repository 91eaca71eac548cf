/* What the sinners share: input `x` FP32 [-1], output `y` FP32 [-1], y = 2x.
 *
 * The sin is committed where the first element of x is 1000 or more: the warm-up, whose inputs are zeros, goes well.
 */
#ifndef HOSTILE_H
#define HOSTILE_H

#include "baton_model.h"

#include <string.h>

#define DESCRIPTION                                                                                                    \
    "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1]}],"                                             \
    "\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[-1]}]}"

static inline int tempted(const baton_input *x) { return x->shape[0] > 0 && *(const float *)x->data >= 1000.0f; }

/* The good answer. */
static inline int32_t answer(const baton_input *x, baton_output *y) {
    y->rank = 1;
    y->shape[0] = x->shape[0];
    y->size = x->size;
    if (y->size > y->capacity) return BATON_MORE;
    for (int64_t i = 0; i < x->shape[0]; i++) ((float *)y->data)[i] = 2 * ((const float *)x->data)[i];
    return BATON_OK;
}

static inline int32_t write_text(baton_text *text, const char *content) {
    text->size = strlen(content);
    if (text->size > text->capacity) return BATON_MORE;
    memcpy(text->data, content, text->size);
    return BATON_OK;
}

static inline int32_t create(void **model, baton_text *error) {
    (void)error;
    *model = NULL;
    return BATON_OK;
}

static inline int32_t describe(void *model, baton_text *json) {
    (void)model;
    return write_text(json, DESCRIPTION);
}

static inline int32_t run_well(void *model, const baton_input *x, uint32_t inputs, baton_output *y, uint32_t outputs,
                               baton_text *error) {
    (void)model, (void)inputs, (void)outputs, (void)error;
    return answer(x, y);
}

static inline void destroy(void *model) { (void)model; }

/* Exports a model that does `void sin(void)` and then, if it still can, answers well. */
#define SINNER(build, sin)                                                                                             \
    static int32_t run(void *model, const baton_input *x, uint32_t inputs, baton_output *y, uint32_t outputs,          \
                       baton_text *error) {                                                                            \
        if (tempted(x)) sin();                                                                                         \
        return run_well(model, x, inputs, y, outputs, error);                                                          \
    }                                                                                                                  \
    BATON_MODEL("hostile " build, 0, create, describe, run, destroy)

/* Exports a model whose good answer goes through `int32_t lie(baton_output *y)`, which gives the status. */
#define LIAR(build, lie)                                                                                               \
    static int32_t run(void *model, const baton_input *x, uint32_t inputs, baton_output *y, uint32_t outputs,          \
                       baton_text *error) {                                                                            \
        int32_t status = run_well(model, x, inputs, y, outputs, error);                                                \
        return status == BATON_OK && tempted(x) ? lie(y) : status;                                                     \
    }                                                                                                                  \
    BATON_MODEL("hostile " build, 0, create, describe, run, destroy)

/* Exports a model whose `run` is harmless: its sin is elsewhere. */
#define INNOCENT(build) BATON_MODEL("hostile " build, 0, create, describe, run_well, destroy)

#endif
