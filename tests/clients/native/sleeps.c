/* y = 2x after as many milliseconds as x[0] says. `span` is when the call began and ended, in nanoseconds of the
 * machine's clock, and `pid` the process that it ran in. */
#include "model.h"

#include <time.h>
#include <unistd.h>

#define DESCRIPTION                                                                                                    \
    "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1]}],"                                             \
    "\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[-1]},"                                              \
    "{\"name\":\"span\",\"datatype\":\"INT64\",\"shape\":[2]},{\"name\":\"pid\",\"datatype\":\"INT32\",\"shape\":[1]}]}"

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int32_t run(void *model, const baton_input *inputs, uint32_t input_count, baton_output *outputs,
                   uint32_t output_count, baton_text *error) {
    (void)model, (void)input_count, (void)output_count, (void)error;
    int64_t begin = now(), count = inputs[0].shape[0];
    const float *x = (const float *)inputs[0].data;
    int fits = make_vector(&outputs[0], count, sizeof(float));
    fits &= make_vector(&outputs[1], 2, sizeof(int64_t));
    fits &= make_vector(&outputs[2], 1, sizeof(int32_t));
    if (!fits) return BATON_MORE;
    for (int64_t i = 0; i < count; i++) ((float *)outputs[0].data)[i] = 2 * x[i];
    if (count > 0 && x[0] > 0) {
        struct timespec time = {(time_t)(x[0] / 1000), (long)(x[0] * 1e6) % 1000000000L};
        nanosleep(&time, NULL);
    }
    ((int64_t *)outputs[1].data)[0] = begin;
    ((int64_t *)outputs[1].data)[1] = now();
    *(int32_t *)outputs[2].data = (int32_t)getpid();
    return BATON_OK;
}

EXPORT("sleeps 1");
