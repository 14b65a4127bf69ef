/*
 * The C ABI of pajamas-host plugins, version 1. Licence: MIT OR Apache-2.0.
 *
 * A plugin is a dynamic library that exports one function, pj_plugin_entry_v1. Compile it with hidden visibility:
 *   cc -std=c11 -O2 -shared -fPIC -fvisibility=hidden -I plugin-api/include -o libmy_plugin.so my_plugin.c
 * C++ authors: no exception may leave a function that the host calls.
 */

#ifndef PAJAMAS_PLUGIN_H
#define PAJAMAS_PLUGIN_H

/* Generated from plugin-api/src/abi.rs; SPEC.md has the rules. Do not edit. */

#include <stdint.h>

// Major version of the ABI. A breaking change means a new entry symbol, never a new meaning of an old one.
#define PJ_ABI_MAJOR 1

// Minor version of the ABI: grows when fields are appended or constants are added.
#define PJ_ABI_MINOR 0

// The call succeeded.
#define PJ_OK 0

// The job or call was cancelled; not a failure.
#define PJ_CANCELLED 1

// The request is not valid (unknown option, wrong shape, prompt too long).
#define PJ_ERR_INVALID 2

// The plugin does not support what was asked.
#define PJ_ERR_UNSUPPORTED 3

// A file or an object does not exist.
#define PJ_ERR_NOT_FOUND 4

// Host or device memory does not suffice.
#define PJ_ERR_OUT_OF_MEMORY 5

// The model file is corrupt or of an unknown kind.
#define PJ_ERR_BAD_MODEL 6

// All queues are full: try again later.
#define PJ_ERR_OVERLOADED 7

// The deadline of the request has passed.
#define PJ_ERR_DEADLINE 8

// A device failed or is missing.
#define PJ_ERR_DEVICE 9

// Any other failure inside the plugin.
#define PJ_ERR_INTERNAL 10

// Plugin code panicked or threw; the call was abandoned.
#define PJ_ERR_PANIC 11

// Log level: an error.
#define PJ_LOG_ERROR 1

// Log level: a warning.
#define PJ_LOG_WARN 2

// Log level: something a user wants to know.
#define PJ_LOG_INFO 3

// Log level: something a developer wants to know.
#define PJ_LOG_DEBUG 4

// Log level: everything.
#define PJ_LOG_TRACE 5

// One generated token: `token`, `text`, and `logprob` and `top` if asked for.
#define PJ_EVENT_TOKEN 1

// One transcribed segment: `json` as in the schema of `transcribe`.
#define PJ_EVENT_SEGMENT 2

// A chunk of audio: `data` is interleaved f32 in -1..1, with `sample_rate_hz` and `channels`.
#define PJ_EVENT_AUDIO 3

// Detected objects of one picture: `json` as in the schema of `detect`.
#define PJ_EVENT_DETECTIONS 4

// A vector of f32 in `data`, for input number `index`.
#define PJ_EVENT_VECTOR 5

// Named tensors in `tensors`.
#define PJ_EVENT_TENSORS 6

// Progress of a long call: `fraction` in 0..1, `text` says what is done.
#define PJ_EVENT_PROGRESS 7

// Running counts: `prompt_tokens`, `cached_tokens`, `completion_tokens`.
#define PJ_EVENT_USAGE 8

// Terminal: the job succeeded; `code` is a `PJ_FINISH_…`, the counts are final.
#define PJ_EVENT_DONE 9

// Terminal: the job failed; `code` is a status, `text` says why.
#define PJ_EVENT_ERROR 10

// The answer of a call that answers with JSON (`probe`, `inspect`, `load`, `stats`, `classify`): `json`.
#define PJ_EVENT_RESULT 11

// Finish reason: the model ended by itself.
#define PJ_FINISH_STOP 0

// Finish reason: `max_tokens` or the end of the context was reached.
#define PJ_FINISH_LENGTH 1

// Finish reason: the job was cancelled.
#define PJ_FINISH_CANCELLED 2

// A piece of text, UTF-8. With `PJ_PART_TRUSTED` in `flags` it may contain control tokens.
#define PJ_PART_TEXT 1

// Token ids: `data` is an array of u32.
#define PJ_PART_TOKENS 2

// A picture: `data` is RGB, 8 bits each, row by row; `shape` is height, width, 3.
#define PJ_PART_RGB8 3

// Sound: `data` is mono f32 at 16 kHz in -1..1; `shape` is the number of samples.
#define PJ_PART_PCM_F32 4

// A named tensor: `dtype`, `shape`, `data`.
#define PJ_PART_TENSOR 5

// Bytes of a kind that `meta_json` names.
#define PJ_PART_BYTES 6

// In `pj_part.flags`: the text comes from the model's own template, and control tokens in it are meant.
#define PJ_PART_TRUSTED 1

// DLPack type code of signed integers.
#define PJ_DTYPE_INT 0

// DLPack type code of unsigned integers.
#define PJ_DTYPE_UINT 1

// DLPack type code of IEEE floating point numbers.
#define PJ_DTYPE_FLOAT 2

// DLPack type code of bfloat16.
#define PJ_DTYPE_BFLOAT 4

// DLPack type code of booleans.
#define PJ_DTYPE_BOOL 6

// What a plugin made in `init`; only the plugin looks inside.
typedef struct pj_context pj_context;

// A running job; only the plugin looks inside.
typedef struct pj_job pj_job;

// A loaded model; only the plugin looks inside.
typedef struct pj_model pj_model;

// A UTF-8 string that is not zero-terminated. Frozen: it is passed by value and never grows.
typedef struct pj_str {
  // First byte; may be `NULL` iff `len` is 0.
  const char *ptr;
  // Length in bytes.
  uint64_t len;
} pj_str;

// The host's services. Valid from `init` until `shutdown` has returned; callable from any thread.
typedef struct pj_host {
  // Size of this struct as the host knows it, in bytes.
  uint32_t struct_size;
  // The negotiated major version.
  uint32_t abi_major;
  // The negotiated minor version: the smaller of the host's and the plugin's.
  uint32_t abi_minor;
  // 0.
  uint32_t reserved;
  // First argument of the functions below.
  void *ctx;
  // Whether a message of this level would be kept: a cheap test before building a message.
  uint8_t (*log_enabled)(void *ctx, uint32_t level, struct pj_str target);
  // Logs one message; `fields_json` is empty or a JSON object. Never blocks for long.
  void (*log)(void *ctx,
              uint32_t level,
              struct pj_str target,
              struct pj_str message,
              struct pj_str fields_json);
  // Looks up an optional service of the host; `NULL` means that the host does not have it.
  const void *(*get_extension)(void *ctx, struct pj_str id);
} pj_host;

// One alternative of a token, with its log-probability. Arrays of it carry `top_size`.
typedef struct pj_top_logprob {
  // Token id.
  uint32_t token;
  // Natural logarithm of its probability.
  float logprob;
  // The token's bytes; may end inside a code point.
  struct pj_str text;
} pj_top_logprob;

// Element type of a tensor, laid out as DLPack's `DLDataType`. Frozen.
typedef struct pj_dtype {
  // One of `PJ_DTYPE_…`.
  uint8_t code;
  // Bits of one lane.
  uint8_t bits;
  // Number of lanes, 1 for scalars.
  uint16_t lanes;
} pj_dtype;

// A named tensor in host memory, contiguous and row-major. Arrays of it carry `tensor_size`.
typedef struct pj_tensor {
  // Size of this struct as its writer knows it, in bytes.
  uint32_t struct_size;
  // Element type.
  struct pj_dtype dtype;
  // Number of dimensions.
  uint32_t rank;
  // 0.
  uint32_t reserved;
  // Name of the input or output.
  struct pj_str name;
  // `rank` dimensions.
  const int64_t *shape;
  // First byte.
  const void *data;
  // Length in bytes.
  uint64_t data_len;
} pj_tensor;

// What a plugin tells the host about a job or a call. All pointers are valid for the length of `push` only.
typedef struct pj_event {
  // Size of this struct as the plugin knows it, in bytes.
  uint32_t struct_size;
  // One of `PJ_EVENT_…`; the host ignores kinds that it does not know.
  uint32_t kind;
  // DONE: `PJ_FINISH_…`. ERROR: a status.
  int32_t code;
  // 0; bits are defined by later minors.
  uint32_t flags;
  // TOKEN: token id.
  uint32_t token;
  // TOKEN: natural logarithm of the token's probability, if asked for.
  float logprob;
  // VECTOR, RESULT: number of the input, from 0.
  uint32_t index;
  // PROGRESS: 0 to 1.
  float fraction;
  // AUDIO: frames per second.
  uint32_t sample_rate_hz;
  // AUDIO: interleaved channels.
  uint32_t channels;
  // USAGE, DONE: tokens of the prompt.
  uint32_t prompt_tokens;
  // USAGE, DONE: tokens of the prompt whose computation was reused.
  uint32_t cached_tokens;
  // USAGE, DONE: tokens generated, those of `resume` included.
  uint32_t completion_tokens;
  // TOKEN: number of entries in `top`.
  uint32_t top_len;
  // TOKEN: size of one entry of `top`, in bytes.
  uint32_t top_size;
  // TENSORS: number of entries in `tensors`.
  uint32_t tensors_len;
  // TENSORS: size of one entry of `tensors`, in bytes.
  uint32_t tensor_size;
  // 0.
  uint32_t reserved;
  // TOKEN: the token's bytes, which may end inside a code point. PROGRESS, ERROR: a message.
  struct pj_str text;
  // SEGMENT, DETECTIONS, RESULT: a JSON document.
  struct pj_str json;
  // AUDIO, VECTOR: first byte of the payload.
  const void *data;
  // Length of `data` in bytes.
  uint64_t data_len;
  // TOKEN: the most probable alternatives, best first.
  const struct pj_top_logprob *top;
  // TENSORS: the tensors.
  const struct pj_tensor *tensors;
} pj_event;

// Where a plugin sends events. Valid, with its `ctx`, until the call returns (`init`, `probe`, `inspect`, `load`,
// `stats`) or until `release_job` returns (`submit`). Both functions are callable from any thread and never block.
typedef struct pj_sink {
  // Size of this struct as the host knows it, in bytes.
  uint32_t struct_size;
  // 0.
  uint32_t reserved;
  // First argument of the functions below.
  void *ctx;
  // Takes one event. `PJ_OK`, or `PJ_CANCELLED`: stop soon and send the terminal event.
  int32_t (*push)(void *ctx, const struct pj_event *event);
  // 1 when the call or job is cancelled: poll it wherever nothing is pushed for long.
  uint8_t (*cancelled)(void *ctx);
} pj_sink;

// One piece of a request's input. Arrays of it carry `part_size`.
typedef struct pj_part {
  // Size of this struct as the host knows it, in bytes.
  uint32_t struct_size;
  // One of `PJ_PART_…`.
  uint32_t kind;
  // `PJ_PART_TRUSTED` or 0.
  uint32_t flags;
  // Element type of `data`.
  struct pj_dtype dtype;
  // Number of dimensions in `shape`.
  uint32_t rank;
  // 0.
  uint32_t reserved;
  // Name of the input, or empty.
  struct pj_str name;
  // Empty or a JSON object.
  struct pj_str meta_json;
  // `rank` dimensions.
  const int64_t *shape;
  // First byte.
  const void *data;
  // Length in bytes.
  uint64_t data_len;
} pj_part;

// One request. Valid, with everything that it points to, until `submit` returns: the plugin copies what it keeps.
typedef struct pj_request {
  // Size of this struct as the host knows it, in bytes.
  uint32_t struct_size;
  // Number of entries in `parts`.
  uint32_t parts_len;
  // Size of one entry of `parts`, in bytes.
  uint32_t part_size;
  // 0.
  uint32_t reserved;
  // Name of the task, such as `generate`.
  struct pj_str task;
  // The parameters: a JSON object as in the task's schema.
  struct pj_str params_json;
  // The inputs.
  const struct pj_part *parts;
  // Milliseconds from now until the answer is useless; 0 means no deadline.
  uint64_t deadline_ms;
} pj_request;

// A plugin: static data and functions. It stays valid until the process ends.
typedef struct pj_plugin {
  // Size of this struct as the plugin knows it, in bytes.
  uint32_t struct_size;
  // The major version that the plugin was built for: 1.
  uint32_t abi_major;
  // The minor version that the plugin was built for.
  uint32_t abi_minor;
  // The oldest minor version of a host that the plugin works with.
  uint32_t min_host_minor;
  // The plugin's name, as in its manifest.
  struct pj_str id;
  // The plugin's version, semver.
  struct pj_str version;
  // Empty or a JSON object: compiler, panic strategy, engine version.
  struct pj_str build_json;
  // Called once, before all others. Required.
  int32_t (*init)(const struct pj_host *host,
                  struct pj_str plugin_dir,
                  const struct pj_sink *sink,
                  struct pj_context **out);
  // Looks at the devices without loading a model; one RESULT. Optional.
  int32_t (*probe)(struct pj_context *ctx, const struct pj_sink *sink);
  // Reads a model file's metadata without loading it; one RESULT. Optional.
  int32_t (*inspect)(struct pj_context *ctx, struct pj_str path, const struct pj_sink *sink);
  // Loads a model: PROGRESS as it goes, then one RESULT with the model's info. Blocks, cancellable. Required.
  int32_t (*load)(struct pj_context *ctx,
                  struct pj_str spec_json,
                  const struct pj_sink *sink,
                  struct pj_model **out);
  // Starts a job and returns at once. Required.
  int32_t (*submit)(struct pj_model *model,
                    const struct pj_request *request,
                    const struct pj_sink *sink,
                    struct pj_job **out);
  // Asks a job to stop: any thread, any number of times, until `release_job`. Required.
  void (*cancel)(struct pj_job *job);
  // Frees a job after its terminal event. Required.
  void (*release_job)(struct pj_job *job);
  // Measured memory and occupancy: one RESULT. Optional.
  int32_t (*stats)(struct pj_model *model, const struct pj_sink *sink);
  // Frees a model after its last job was released. Required.
  void (*unload)(struct pj_model *model);
  // Looks up an optional domain such as `pj.tensors/1`; `NULL` means unsupported. Optional.
  const void *(*get_extension)(struct pj_context *ctx, struct pj_str id);
  // Frees the context after the last model was unloaded. Required.
  void (*shutdown)(struct pj_context *ctx);
} pj_plugin;

// The type of the one exported symbol, `pj_plugin_entry_v1`. `NULL` refuses the host.
typedef const struct pj_plugin *(*pj_plugin_entry_v1_fn)(uint32_t host_minor);

/* Makes the entry visible where everything else is hidden. */
#if defined(_WIN32)
#define PJ_EXPORT __declspec(dllexport)
#else
#define PJ_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The one function that a plugin exports; see pj_plugin_entry_v1_fn. Write PJ_EXPORT before its definition. */
PJ_EXPORT const pj_plugin *pj_plugin_entry_v1(uint32_t host_minor);

#ifdef __cplusplus
}
#endif

#endif /* PAJAMAS_PLUGIN_H */
