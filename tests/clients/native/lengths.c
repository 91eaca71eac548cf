/* How many bytes each word has. */
#include "model.h"

#define DESCRIPTION                                                                                                    \
    "{\"inputs\":[{\"name\":\"words\",\"datatype\":\"BYTES\",\"shape\":[-1]}],"                                        \
    "\"outputs\":[{\"name\":\"lengths\",\"datatype\":\"INT64\",\"shape\":[-1]}]}"

static int32_t run(void *model, const baton_input *inputs, uint32_t input_count, baton_output *outputs,
                   uint32_t output_count, baton_text *error) {
    (void)model, (void)input_count, (void)output_count, (void)error;
    int64_t count = inputs[0].shape[0];
    if (!make_vector(&outputs[0], count, sizeof(int64_t))) return BATON_MORE;
    const uint8_t *at = inputs[0].data;
    for (int64_t i = 0; i < count; i++) {
        uint32_t length;
        memcpy(&length, at, sizeof length);
        at += sizeof length + length;
        ((int64_t *)outputs[0].data)[i] = length;
    }
    return BATON_OK;
}

EXPORT("lengths 1");
