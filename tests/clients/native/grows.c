/* `values` has `count` elements, i at the place i, and `text` the same as 4 decimal digits each. `runs` tells how often
 * the server had to call for that: once, and once more for each BATON_MORE. */
#include "model.h"

#define DESCRIPTION                                                                                                    \
    "{\"inputs\":[{\"name\":\"count\",\"datatype\":\"INT64\",\"shape\":[1]}],"                                         \
    "\"outputs\":[{\"name\":\"values\",\"datatype\":\"INT64\",\"shape\":[-1]},"                                        \
    "{\"name\":\"text\",\"datatype\":\"BYTES\",\"shape\":[-1]},"                                                       \
    "{\"name\":\"runs\",\"datatype\":\"INT32\",\"shape\":[1]}]}"

static int32_t run(void *model, const baton_input *inputs, uint32_t input_count, baton_output *outputs,
                   uint32_t output_count, baton_text *error) {
    static int32_t runs;
    (void)model, (void)input_count, (void)output_count;
    int64_t count = *(const int64_t *)inputs[0].data;
    if (count < 0 || count > 1 << 28) {
        write_text(error, "count must be between 0 and 2^28");
        return BATON_INVALID_INPUT;
    }
    int64_t texts = count < 1000 ? count : 1000;
    runs++;
    int fits = make_vector(&outputs[0], count, sizeof(int64_t));
    fits &= make_vector(&outputs[1], texts, sizeof(uint32_t) + 4);
    fits &= make_vector(&outputs[2], 1, sizeof(int32_t));
    if (!fits) return BATON_MORE;
    for (int64_t i = 0; i < count; i++) ((int64_t *)outputs[0].data)[i] = i;
    uint8_t *at = outputs[1].data;
    for (uint32_t i = 0, digits = 4; i < texts; i++) {
        memcpy(at, &digits, sizeof digits);
        at += sizeof digits;
        for (uint32_t unit = 1000; unit > 0; unit /= 10) *at++ = (uint8_t)('0' + i / unit % 10);
    }
    *(int32_t *)outputs[2].data = runs;
    runs = 0;
    return BATON_OK;
}

EXPORT("grows 1");
