/* The C interface through which the plugin reaches ExecuTorch's C++ runtime.
 *
 * Statuses are codes of `executorch::runtime::Error`; 0 is success. Nothing is written to an `out` parameter on failure.
 * A program may be used by several threads at once; a method, by one at a time. A program must outlive its methods. No
 * exception leaves a function.
 */
#ifndef PAJAMAS_EXECUTORCH_H
#define PAJAMAS_EXECUTORCH_H

#include <stddef.h>
#include <stdint.h>

#define PAJAMAS_ET_API __attribute__((visibility("default")))
/* Raised when anything below changes. */
#define PAJAMAS_ET_INTERFACE 1
/* A tensor of more dimensions is refused. */
#define PAJAMAS_ET_DIMS_MAX 16

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pajamas_et_program pajamas_et_program;
typedef struct pajamas_et_method pajamas_et_method;

/* A message of the runtime: `level` is one of 'D', 'I', 'E' and 'F'; the texts are valid during the call, and `message` has
 * no zero at its end. May be called by any thread, also by several at once. */
typedef void (*pajamas_et_log)(char level, const char *file, size_t line, const char *message, size_t message_len);

/* A tensor of a method, valid until the method is used again. */
typedef struct {
  /* A code of `ScalarType`. */
  int8_t scalar_type;
  uint32_t dims;
  int32_t sizes[PAJAMAS_ET_DIMS_MAX];
  /* The dimensions from the outermost in memory to the innermost. */
  uint8_t dim_order[PAJAMAS_ET_DIMS_MAX];
  const void *data;
  size_t bytes;
} pajamas_et_tensor;

/* PAJAMAS_ET_INTERFACE as this library was compiled. */
PAJAMAS_ET_API uint32_t pajamas_et_interface(void);

/* The version of ExecuTorch that this library was compiled for, such as `1.5.1`; lives for ever. */
PAJAMAS_ET_API const char *pajamas_et_version(void);

/* Starts the runtime and sends its messages to `log`. To be called once, before anything else. */
PAJAMAS_ET_API uint32_t pajamas_et_start(pajamas_et_log log);

/* The name of a status, such as `OperatorMissing`; lives for ever. */
PAJAMAS_ET_API const char *pajamas_et_status_name(uint32_t status);

/* How many backends have registered themselves. */
PAJAMAS_ET_API size_t pajamas_et_backends(void);

/* The name of a backend; null beyond the last. Lives for ever. */
PAJAMAS_ET_API const char *pajamas_et_backend(size_t index);

/* The number of threads of the pool that all kernels and delegates of the process share. No method may be loaded: some
 * delegates keep pointers into the pool. */
PAJAMAS_ET_API uint32_t pajamas_et_set_threads(uint32_t threads);

/* Maps a file and verifies it. */
PAJAMAS_ET_API uint32_t pajamas_et_program_open(const char *file, pajamas_et_program **out);

PAJAMAS_ET_API void pajamas_et_program_close(pajamas_et_program *program);

/* Loads a method: resolves its operators, starts its delegates, and gets the memory that its plan asks for. */
PAJAMAS_ET_API uint32_t pajamas_et_method_open(
    const pajamas_et_program *program, const char *name, pajamas_et_method **out);

PAJAMAS_ET_API void pajamas_et_method_close(pajamas_et_method *method);

/* Sets an input. The method may read `tensor->data` until the next run has ended. */
PAJAMAS_ET_API uint32_t pajamas_et_method_set_input(
    pajamas_et_method *method, size_t index, const pajamas_et_tensor *tensor);

/* Runs the method once. All inputs must be set. */
PAJAMAS_ET_API uint32_t pajamas_et_method_run(pajamas_et_method *method);

/* What the last run returned: `InvalidType` if it is no tensor. */
PAJAMAS_ET_API uint32_t pajamas_et_method_output(
    const pajamas_et_method *method, size_t index, pajamas_et_tensor *out);

#ifdef __cplusplus
}
#endif

#endif
