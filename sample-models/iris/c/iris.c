/* Species of an iris flower from four lengths in cm: a native model in C.
 *
 * It takes and answers what ../v2/model.onnx does, so either can be pushed in place of the other:
 *
 *     cc -O2 -shared -fPIC -fvisibility=hidden -I model-abi/include -o iris.so sample-models/iris/c/iris.c -lm
 */
#include "baton_model.h"

#include <math.h>
#include <string.h>

enum { FEATURES = 4, SPECIES = 3 };

static const char DESCRIPTION[] =
    "{\"inputs\":[{\"name\":\"X\",\"datatype\":\"FP32\",\"shape\":[-1,4]}],"
    "\"outputs\":[{\"name\":\"label\",\"datatype\":\"INT64\",\"shape\":[-1]},"
    "{\"name\":\"probabilities\",\"datatype\":\"FP32\",\"shape\":[-1,3]}]}";

/* What the model learned; coefficients.py printed it from ../v2/model.onnx. */
static const float MEAN[FEATURES] = {5.83900023f, 3.08100009f, 3.74799991f, 1.19299996f};
static const float SCALE[FEATURES] = {1.17852855f, 2.31907487f, 0.555804670f, 1.30293739f};
static const float WEIGHT[SPECIES][FEATURES] = {
    {-1.12857366f, 1.02460814f, -1.70057440f, -1.56541204f},
    {0.271818966f, -0.237186432f, -0.223234102f, -0.535207927f},
    {0.856754363f, -0.787421703f, 1.92380822f, 2.10061932f},
};
static const float BIAS[SPECIES] = {-0.159836248f, 1.82954681f, -1.66971111f};

/* Writes the probability of each species; returns the most probable one. */
static int64_t classify(const float *flower, float *probabilities) {
    int64_t best = 0;
    for (int s = 0; s < SPECIES; s++) {
        float score = BIAS[s];
        for (int f = 0; f < FEATURES; f++) score += WEIGHT[s][f] * (flower[f] - MEAN[f]) * SCALE[f];
        probabilities[s] = score;
        if (score > probabilities[best]) best = s;
    }
    /* Softmax. Without the subtraction a large score would make expf infinite. */
    float highest = probabilities[best], sum = 0;
    for (int s = 0; s < SPECIES; s++) sum += probabilities[s] = expf(probabilities[s] - highest);
    for (int s = 0; s < SPECIES; s++) probabilities[s] /= sum;
    return best;
}

/* Copies as much as fits. `size` is what would be needed, so the caller can tell whether something is missing. */
static void write_text(baton_text *text, const char *content) {
    text->size = strlen(content);
    uint64_t fits = text->size < text->capacity ? text->size : text->capacity;
    if (fits > 0) memcpy(text->data, content, fits);
}

static int32_t create(void **model, baton_text *error) {
    (void)error;
    *model = NULL; /* all there is to know is constant */
    return BATON_OK;
}

static int32_t describe(void *model, baton_text *json) {
    (void)model;
    write_text(json, DESCRIPTION);
    return json->size <= json->capacity ? BATON_OK : BATON_MORE;
}

static int32_t run(void *model, const baton_input *inputs, uint32_t input_count, baton_output *outputs,
                   uint32_t output_count, baton_text *error) {
    (void)model;
    if (input_count != 1 || output_count != 2) {
        write_text(error, "wanted the input X and the outputs label and probabilities");
        return BATON_INVALID_INPUT;
    }
    const baton_input *x = &inputs[0];
    if (x->datatype != BATON_FP32 || x->rank != 2 || x->shape[0] < 0 || x->shape[1] != FEATURES) {
        write_text(error, "X is not FP32 of the shape [-1,4]");
        return BATON_INVALID_INPUT;
    }
    int64_t flowers = x->shape[0];

    baton_output *label = &outputs[0], *probabilities = &outputs[1];
    label->rank = 1;
    label->shape[0] = flowers;
    label->size = (uint64_t)flowers * sizeof(int64_t);
    probabilities->rank = 2;
    probabilities->shape[0] = flowers;
    probabilities->shape[1] = SPECIES;
    probabilities->size = (uint64_t)flowers * SPECIES * sizeof(float);
    if (label->size > label->capacity || probabilities->size > probabilities->capacity) return BATON_MORE;

    const float *features = (const float *)x->data;
    int64_t *labels = (int64_t *)label->data;
    float *rows = (float *)probabilities->data;
    for (int64_t i = 0; i < flowers; i++) labels[i] = classify(&features[i * FEATURES], &rows[i * SPECIES]);
    return BATON_OK;
}

static void destroy(void *model) { (void)model; }

/* `run` only reads what is constant, so any number of threads may call it at once. */
BATON_MODEL("iris 2", BATON_CONCURRENT, create, describe, run, destroy);
