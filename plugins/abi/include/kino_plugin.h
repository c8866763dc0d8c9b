// The contract between Kinograph and its plugins. Generated: do not edit.
//
// A plugin exports one function, `kino_plugin`. Who owns what, which thread calls what, and how
// errors are said stands at each function; the rules in short:
//
// - A function that can fail returns an error that belongs to the caller; null is success, and
//   only then are results written. An error of the host that a plugin does nothing about is
//   returned as it is: its message, hint and code reach the user.
// - Texts are UTF-8, pointer and length, without an ending zero, and borrowed: copy what you keep.
// - Values are immutable and counted. What a `const KinoValue *` points to is lent for the call;
//   `retain` keeps it. A `KinoValue *` belongs to whoever has it, who releases it, or returns it
//   as an output.
// - A null value is allowed everywhere: `kind`, `len` and `type_name` say that it is none, other
//   functions fail with code `invalid`.
// - Functions on values may be called from any thread, at any time; those that take a `KinoCall`
//   only during that call, from any thread. `open`, `run`, `save` and `close` of one instance never
//   run at the same time, but perhaps on different threads; different instances run side by side.
// - Nothing may unwind or longjmp across a function of either table: catch every exception.
// - Both tables only grow at their end. Look at `size` before you read a field that a version after
//   2.0 added.
// - Tensors are seen as DLPack says (https://dmlc.github.io/dlpack/latest/c_api.html). Its own header
//   may come before or after this one.

#ifndef KINO_PLUGIN_H
#define KINO_PLUGIN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

// DLPack's own header where there is one; else its types and names as of 1.0.
#if !defined(DLPACK_DLPACK_H_) && defined(__has_include)
#if __has_include(<dlpack/dlpack.h>)
#include <dlpack/dlpack.h>
#endif
#endif
#ifndef DLPACK_DLPACK_H_
#define DLPACK_DLPACK_H_
#define DLPACK_MAJOR_VERSION 1
#define DLPACK_MINOR_VERSION 0
#define DLPACK_FLAG_BITMASK_READ_ONLY (1UL << 0UL)
#define DLPACK_FLAG_BITMASK_IS_COPIED (1UL << 1UL)
#ifdef __cplusplus
typedef enum : int32_t {
#else
typedef enum {
#endif
  kDLCPU = 1,
  kDLCUDA = 2,
  kDLCUDAHost = 3,
  kDLOpenCL = 4,
  kDLVulkan = 7,
  kDLMetal = 8,
  kDLVPI = 9,
  kDLROCM = 10,
  kDLROCMHost = 11,
  kDLExtDev = 12,
  kDLCUDAManaged = 13,
  kDLOneAPI = 14,
  kDLWebGPU = 15,
  kDLHexagon = 16,
  kDLMAIA = 17
} DLDeviceType;
typedef enum {
  kDLInt = 0U,
  kDLUInt = 1U,
  kDLFloat = 2U,
  kDLOpaqueHandle = 3U,
  kDLBfloat = 4U,
  kDLComplex = 5U,
  kDLBool = 6U
} DLDataTypeCode;
typedef struct {
  uint32_t major;
  uint32_t minor;
} DLPackVersion;
typedef struct {
  DLDeviceType device_type;
  int32_t device_id;
} DLDevice;
typedef struct {
  uint8_t code;  // a DLDataTypeCode
  uint8_t bits;
  uint16_t lanes;  // 1 here
} DLDataType;
typedef struct {
  void *data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape;
  int64_t *strides;  // in elements
  uint64_t byte_offset;
} DLTensor;
typedef struct DLManagedTensor {
  DLTensor dl_tensor;
  void *manager_ctx;
  void (*deleter)(struct DLManagedTensor *self);
} DLManagedTensor;
typedef struct DLManagedTensorVersioned {
  DLPackVersion version;
  void *manager_ctx;
  void (*deleter)(struct DLManagedTensorVersioned *self);
  uint64_t flags;
  DLTensor dl_tensor;
} DLManagedTensorVersioned;
#elif !defined(DLPACK_MAJOR_VERSION)
#error "kino_plugin.h needs DLPack 1.0 or later"
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct KinoCall KinoCall;
typedef struct KinoValue KinoValue;
typedef struct KinoError KinoError;
typedef struct KinoInstance KinoInstance;
typedef struct KinoTensorBuilder KinoTensorBuilder;
typedef struct KinoFramesBuilder KinoFramesBuilder;


// What a plugin's table begins with: `KINOPLUG` in ASCII, read as a little-endian number.
#define KINO_MAGIC 5140098457524914507

// The major version of the contract: host and plugin must have the same.
#define KINO_MAJOR 2

// The minor version of the contract: it only adds.
#define KINO_MINOR 0

// What a value is: one of the `KINO_…` kinds below, or one of a later version: pass on what you
// do not know.
typedef uint32_t KinoKind;

// UTF-8 text or bytes: pointer and length. Borrowed; null with length 0 where there is none.
typedef struct {
  // The first byte.
  const char *data;
  // The number of bytes.
  size_t len;
} KinoStr;

// What a plugin offers. All functions are there, also those that have nothing to do.
typedef struct {
  // `KINO_MAGIC`.
  uint64_t magic;
  // `KINO_MAJOR` of the header that the plugin was built with.
  uint32_t major;
  // `KINO_MINOR` of that header.
  uint32_t minor;
  // The size of this table in bytes.
  size_t size;
  // What the plugin can do beyond what `minor` says, as words with spaces between them. None are
  // defined yet: leave it empty.
  KinoStr capabilities;
  // The nodes and types, as JSON (DESCRIPTOR.md); lives as long as the library.
  KinoStr descriptor;
  // Makes an instance of a node, which belongs to the host until `close`; null is one, too.
  // `saved` is what `save` of an earlier build gave; its `data` is null where there is nothing. A
  // plugin that cannot use it fails, and the host opens again without.
  KinoError *(*open)(KinoCall *call, KinoStr node, KinoStr saved, KinoInstance **instance);
  // Computes. `inputs` are in the descriptor's order. Defaults are filled in: null stands only
  // where nothing feeds an optional port. The plugin writes a value, which it gives away, or null
  // to every place of `outputs`. After a failure the host releases what was written.
  KinoError *(*run)(KinoCall *call,
                    KinoInstance *instance,
                    const KinoValue *const *inputs,
                    size_t input_count,
                    KinoValue **outputs,
                    size_t output_count);
  // Gives the state that a newer build may restore, as a value of kind KINO_BYTES, or null where
  // there is none.
  KinoError *(*save)(KinoCall *call, KinoInstance *instance, KinoValue **state);
  // Ends an instance.
  void (*close)(KinoInstance *instance);
  // Says that no instance is left and none will be opened. The code stays mapped.
  void (*shutdown)(void);
} KinoPlugin;

// A value with a name: a field of a record, or an item of a list (whose name may be empty).
typedef struct {
  // The name.
  KinoStr name;
  // The value; lent.
  const KinoValue *value;
} KinoField;

// What the host offers. Every function is there, up to `size`. `call` may be null in the functions
// that make or compute something, where there is none.
typedef struct {
  // The size of this table in bytes.
  size_t size;
  // `KINO_MAJOR` of the host.
  uint32_t major;
  // `KINO_MINOR` of the host.
  uint32_t minor;
  // Empty: `has` answers. It keeps its place, as all before it do in every version.
  KinoStr capabilities;
  // For `kino_plugin` alone: says why it is about to return null, and what to do about it (may
  // be empty). `call` is null.
  void (*fail)(KinoCall *call, KinoStr message, KinoStr hint);
  // Makes an error, never null: what is wrong, where, what was expected; what the user can do
  // about it (may be empty); a name for programs (may be empty; else at most 64 of `a-z 0-9 - . _`,
  // or it is left off; OPERATIONS.md has those of the host).
  KinoError *(*new_error)(KinoStr message, KinoStr hint, KinoStr code);
  // What is wrong; lives as long as the error. So for the next two.
  KinoStr (*error_message)(const KinoError *error);
  // What to do about it; may be empty.
  KinoStr (*error_hint)(const KinoError *error);
  // Its name for programs, such as `not-granted` or `cancelled`; may be empty.
  KinoStr (*error_code)(const KinoError *error);
  // Gives an error up that is not returned. Null is allowed.
  void (*release_error)(KinoError *error);
  // Whether the host has something, 1 or 0: `op.NAME` and `call.NAME` (OPERATIONS.md),
  // `type.NAME`, `dtype.NAME`.
  uint32_t (*has)(KinoStr name);
  // Logs a message. Levels: 1 error, 2 warning, 3 information, 4 debugging, 5 tracing.
  void (*log)(KinoCall *call, uint32_t level, KinoStr target, KinoStr message);
  // Reports that `step` of `of` pieces of work are done.
  void (*progress)(KinoCall *call, uint64_t step, uint64_t of);
  // Whether the run was cancelled: 1 or 0. Ask between pieces of work, twice a second or more,
  // then return an error of code `cancelled`, whose texts nobody sees.
  uint32_t (*cancelled)(KinoCall *call);
  // Whether anybody reads output `index`: 1 or 0.
  uint32_t (*wants)(KinoCall *call, size_t index);
  // Reads a file that the user granted, whole, as a value of kind KINO_BYTES. `path` is relative
  // to the graph.
  KinoError *(*read_file)(KinoCall *call, KinoStr path, KinoValue **bytes);
  // Counts one owner more, who has the pointer that comes back. Null gives null.
  KinoValue *(*retain)(const KinoValue *value);
  // Counts one owner less; the last one frees the value. Null is allowed.
  void (*release)(KinoValue *value);
  // What a value is; KINO_NONE for null.
  KinoKind (*kind)(const KinoValue *value);
  // The name of the value's type, such as `Frames` or `example.depth`; lives as long as it.
  KinoStr (*type_name)(const KinoValue *value);
  // The whole number; of true or false 1 or 0. Fails where it has more bits.
  KinoError *(*get_i64)(const KinoValue *value, int64_t *number);
  // The same without a sign.
  KinoError *(*get_u64)(const KinoValue *value, uint64_t *number);
  // The whole number high·2^64 + low: graphs have 128 bits.
  KinoError *(*get_wide)(const KinoValue *value, uint64_t *low, int64_t *high);
  // The real number; whole numbers widen.
  KinoError *(*get_f64)(const KinoValue *value, double *number);
  // True or false, as 1 or 0.
  KinoError *(*get_bool)(const KinoValue *value, uint32_t *truth);
  // The text, or the bytes; lives as long as the value.
  KinoError *(*get_bytes)(const KinoValue *value, KinoStr *bytes);
  // The number of items of a list or fields of a record; 0 for all else.
  size_t (*len)(const KinoValue *value);
  // An item of a list or a field of a record by its index, and its name where `name` is not null
  // (it lives as long as `value`). The item belongs to the caller. Frames that lie in a file are
  // read here.
  KinoError *(*item)(const KinoValue *value, size_t index, KinoStr *name, KinoValue **item);
  // A field of a record by its name; null where it has none, or where `value` is no record. It
  // belongs to the caller.
  KinoError *(*field)(const KinoValue *value, KinoStr name, KinoValue **field);
  // Makes a text. What a function makes belongs to the caller.
  KinoError *(*new_text)(KinoStr text, KinoValue **value);
  // Makes bytes.
  KinoError *(*new_bytes)(KinoStr bytes, KinoValue **value);
  // Makes a whole number.
  KinoError *(*new_i64)(int64_t number, KinoValue **value);
  // Makes a whole number.
  KinoError *(*new_u64)(uint64_t number, KinoValue **value);
  // Makes the whole number high·2^64 + low.
  KinoError *(*new_wide)(uint64_t low, int64_t high, KinoValue **value);
  // Makes a real number.
  KinoError *(*new_f64)(double number, KinoValue **value);
  // Makes true or false: 0 is false.
  KinoError *(*new_bool)(uint32_t truth, KinoValue **value);
  // Makes a list.
  KinoError *(*new_list)(const KinoField *items, size_t count, KinoValue **value);
  // Makes a record of a type (DESCRIPTOR.md has each type's fields), or of an own type. Fields
  // that the type does not name are kept. Frames, too, are made of a list `chunks`; `push_frames`
  // makes them piece by piece.
  KinoError *(*new_record)(KinoStr type_name,
                           const KinoField *fields,
                           size_t count,
                           KinoValue **value);
  // Where a tensor lies and how, good as long as the value. Read it only. `strides` are always
  // filled. `data` is null where that is no main memory: operations take such a tensor, `to_host`
  // brings it into main memory, and `view_tensor_on` sees it where it lies. Chunks of Frames are
  // row-major and lie in main memory always. A record with a field `tensor` is seen as that tensor.
  KinoError *(*view_tensor)(const KinoValue *value, DLTensor *view);
  // Begins a tensor in main memory, row-major. Where `zeroed` is 0 its elements are whatever lies
  // there, all of which the plugin writes. A builder is used by one thread at a time.
  KinoError *(*new_tensor_builder)(KinoCall *call,
                                   DLDataType dtype,
                                   const int64_t *shape,
                                   size_t ndim,
                                   uint32_t zeroed,
                                   KinoTensorBuilder **builder);
  // Where its elements are written, good until the builder is finished or released.
  KinoError *(*builder_view)(KinoTensorBuilder *builder, DLTensor *view);
  // The tensor. The builder is gone, after a failure as well.
  KinoError *(*finish_tensor)(KinoTensorBuilder *builder, KinoValue **value);
  // Gives a builder up. Null is allowed.
  void (*release_tensor_builder)(KinoTensorBuilder *builder);
  // Begins Frames of `fps` frames a second, a number above 0; NaN where that is not known.
  KinoError *(*new_frames_builder)(KinoCall *call, double fps, KinoFramesBuilder **builder);
  // Appends a tensor `[n, height, width, 3]` of f32 in 0…1. The host may move it to a file, so
  // that long videos fit.
  KinoError *(*push_frames)(KinoFramesBuilder *builder, const KinoValue *chunk);
  // The Frames, at least one. The builder is gone, after a failure as well.
  KinoError *(*finish_frames)(KinoFramesBuilder *builder, KinoValue **value);
  // Gives a builder up. Null is allowed.
  void (*release_frames_builder)(KinoFramesBuilder *builder);
  // One operation on tensors, where they lie (OPERATIONS.md): its name, its tensors, and its
  // attributes as JSON (empty where it has none).
  KinoError *(*op)(KinoCall *call,
                   KinoStr name,
                   const KinoValue *const *tensors,
                   size_t count,
                   KinoStr attributes,
                   KinoValue **value);
  // One function on values of any kind (OPERATIONS.md). Its results are a list.
  KinoError *(*call)(KinoCall *call,
                     KinoStr name,
                     const KinoValue *const *values,
                     size_t count,
                     KinoStr attributes,
                     KinoValue **list);
  // The stream that the host's work of this call on a CUDA device is ordered by, as a `CUstream`;
  // null elsewhere.
  void *(*stream)(KinoCall *call);
  // Where a tensor lies.
  KinoError *(*device)(const KinoValue *value, DLDevice *device);
  // As `new_tensor_builder`, in the memory of a device, unwritten. The plugin's work on it is
  // ordered before `stream` when it is finished. Fails with code `device` where the host lends no
  // memory of that device; kDLCPU it always does. So for the next two.
  KinoError *(*new_tensor_on)(KinoCall *call,
                              DLDevice device,
                              DLDataType dtype,
                              const int64_t *shape,
                              size_t ndim,
                              KinoTensorBuilder **builder);
  // Makes a value of a tensor of the plugin, on the device where it lies, without a copy where
  // the host can. What writes its elements is ordered before `stream`. The host calls the
  // `deleter` of `given` once, perhaps later and on another thread; after a failure as well.
  KinoError *(*take_tensor)(KinoCall *call, DLManagedTensorVersioned *given, KinoValue **value);
  // A read-only view that outlives the value, of a tensor on any device that the host lends. Its
  // elements are there in the order of `reader`, the stream that the plugin reads on (null for
  // main memory). It is given back by its deleter, on any thread, before `shutdown` returns;
  // before that, the plugin's work on it is ordered before `stream`.
  KinoError *(*view_tensor_on)(KinoCall *call,
                               const KinoValue *value,
                               void *reader,
                               DLManagedTensorVersioned **view);
} KinoHost;

// The type of `kino_plugin`. It is the same in every version of the contract.
typedef const KinoPlugin *(*KinoEntry)(const KinoHost *host);

// No value.
#define KINO_NONE 0

// UTF-8 text; also paths.
#define KINO_TEXT 1

// A whole number of 128 bits.
#define KINO_INT 2

// A 64-bit floating-point number.
#define KINO_REAL 3

// True or false.
#define KINO_BOOL 4

// A tensor.
#define KINO_TENSOR 5

// Several values, each with its name where it has one.
#define KINO_LIST 6

// A value of a named type with named fields, such as Frames (DESCRIPTOR.md has each type's
// fields), or a plugin's own type.
#define KINO_RECORD 7

// Bytes, such as a file's contents.
#define KINO_BYTES 8

// A value that can only be passed on, such as parts of models.
#define KINO_OPAQUE 9

// What makes the entry visible outside of the library.
#ifndef KINO_EXPORT
#if defined(_WIN32)
#define KINO_EXPORT __declspec(dllexport)
#else
#define KINO_EXPORT __attribute__((visibility("default")))
#endif
#endif

// The one function that a plugin exports: `host` stays valid as long as the process lives. Returns
// a static table, or null after `fail`.
KINO_EXPORT const KinoPlugin *kino_plugin(const KinoHost *host);

// A literal as a KinoStr, where something is initialised.
#define KINO_STR(literal) {literal, sizeof(literal) - 1}

// A text that ends with a zero as a KinoStr.
static inline KinoStr kino_str(const char *text) {
  KinoStr str = {text, strlen(text)};
  return str;
}

#ifdef __cplusplus
}
#endif

#endif  /* KINO_PLUGIN_H */
