/* What a native model for Baton is, version 1. `model-abi/src/layout.rs` says the same in Rust; a test compares the two.
 *
 * A library exports one table, `baton_model`, and carries one ELF note; BATON_MODEL makes both. Whoever calls owns all
 * buffers: nothing that one side allocated is freed by the other. See docs/native-models.md.
 */
#ifndef BATON_MODEL_H
#define BATON_MODEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BATON_ABI_VERSION 1
#define BATON_MAX_RANK 16

/* baton_api.features */
#define BATON_CONCURRENT 1ull /* `run` may be called on one model by several threads at once */

/* Results of calls. */
enum {
    BATON_OK = 0,
    BATON_MORE = 1,          /* a buffer is too small: each `size` says what is needed; the call is repeated */
    BATON_INVALID_INPUT = 2, /* the inputs are not what the model takes; the text says why */
    BATON_FAILED = 3,        /* the model failed; the text says why */
    BATON_PANIC = 4          /* the model panicked, and the panic was caught */
};

/* Datatypes of the Open Inference Protocol. */
enum {
    BATON_BOOL = 1, BATON_UINT8 = 2, BATON_UINT16 = 3, BATON_UINT32 = 4, BATON_UINT64 = 5, BATON_INT8 = 6,
    BATON_INT16 = 7, BATON_INT32 = 8, BATON_INT64 = 9, BATON_FP16 = 10, BATON_FP32 = 11, BATON_FP64 = 12,
    BATON_BYTES = 13, BATON_BF16 = 14
};

/* A buffer of the caller for UTF-8 text. */
typedef struct baton_text {
    uint8_t *data;
    uint64_t capacity; /* bytes that fit */
    uint64_t size;     /* set by the model: bytes that the text has */
} baton_text;

/* A tensor that the model reads. Valid until the call returns, and not to be written to. */
typedef struct baton_input {
    uint32_t datatype;
    uint32_t rank; /* how many entries of `shape` count */
    int64_t shape[BATON_MAX_RANK];
    const uint8_t *data; /* row-major, little-endian, aligned to 64 bytes; BYTES elements each behind their length (u32) */
    uint64_t size;       /* bytes at `data` */
} baton_input;

/* A tensor that the model writes. */
typedef struct baton_output {
    uint32_t datatype; /* what the description says; not to be changed */
    uint32_t rank;     /* set by the model */
    int64_t shape[BATON_MAX_RANK]; /* set by the model */
    uint8_t *data;                 /* the caller's buffer, aligned to 64 bytes */
    uint64_t capacity;             /* bytes that fit */
    uint64_t size;                 /* set by the model: bytes written, or needed */
} baton_output;

/* The table that a library exports. */
typedef struct baton_api {
    uint32_t abi_version; /* BATON_ABI_VERSION */
    uint32_t size;        /* sizeof(baton_api) */
    uint64_t features;
    /* Makes a model; on success `*model` is what the other calls get, and may be NULL. */
    int32_t (*create)(void **model, baton_text *error);
    /* Writes inputs and outputs as JSON:
     * {"inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1]}]} */
    int32_t (*describe)(void *model, baton_text *json);
    /* Runs the model once; inputs and outputs come in the order of the description. */
    int32_t (*run)(void *model, const baton_input *inputs, uint32_t input_count, baton_output *outputs,
                   uint32_t output_count, baton_text *error);
    /* Ends a model; the last call that it gets. */
    void (*destroy)(void *model);
} baton_api;

/* The note, in the form that the assembler writes: a note in a section that a compiler wrote would be no note. */
#define BATON_NOTE(build)                                                                                              \
    __asm__(".pushsection .note.baton,\"a\",@note\n"                                                                   \
            ".balign 4\n.long 6\n.long 64\n.long 1\n.asciz \"Baton\"\n.balign 4\n"                                     \
            ".long 1\n1: .asciz \"" build "\"\n.org 1b+60\n.popsection\n")

/* The table; BATON_MODEL defines it. */
extern __attribute__((visibility("default"))) const baton_api baton_model;

/* Exports the model. `build` is a string literal of at most 59 characters: the library's name and version. */
#define BATON_MODEL(build, features_, create_, describe_, run_, destroy_)                                              \
    BATON_NOTE(build);                                                                                                 \
    const baton_api baton_model = {                                                                                    \
        BATON_ABI_VERSION, sizeof(baton_api), features_, create_, describe_, run_, destroy_}

#ifdef __cplusplus
}
#endif

#endif
