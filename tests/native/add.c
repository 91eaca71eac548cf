/* y = x + K for x of shape [n, 4], like the ONNX model of the tests. */
#include "baton_model.h"
#include <string.h>

static const char description[] =
    "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1,4]}],"
    "\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[-1,4]}]}";

static int32_t create(void **model, baton_text *error) {
    (void)error;
    *model = 0;
    return BATON_OK;
}

static int32_t describe(void *model, baton_text *json) {
    (void)model;
    json->size = sizeof description - 1;
    if (json->capacity < json->size) return BATON_MORE;
    memcpy(json->data, description, json->size);
    return BATON_OK;
}

static int32_t run(void *model, const baton_input *inputs, uint32_t input_count, baton_output *outputs,
                   uint32_t output_count, baton_text *error) {
    (void)model, (void)input_count, (void)output_count, (void)error;
    outputs->size = inputs->size;
    if (outputs->capacity < outputs->size) return BATON_MORE;
    outputs->rank = inputs->rank;
    memcpy(outputs->shape, inputs->shape, sizeof inputs->shape);
    const float *x = (const float *)inputs->data;
    float *y = (float *)outputs->data;
    for (uint64_t i = 0; i < inputs->size / sizeof(float); i++) y[i] = x[i] + K;
    return BATON_OK;
}

static void destroy(void *model) { (void)model; }

BATON_MODEL("add", BATON_CONCURRENT, create, describe, run, destroy);
