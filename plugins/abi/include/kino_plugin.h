// The contract between Kinograph and its plugins, version 1.0. Generated: do not edit.
//
// A plugin exports one function, `kino_plugin`, of type `KinoEntry`. Who owns what, which thread
// calls what, and how errors are said stands at each function; the rules in short:
//
// - Strings are UTF-8, pointer and length, borrowed: copy what you keep.
// - Values are immutable and counted. Inputs are lent for the call; values that the host gives
//   belong to you until you release them or return them as outputs.
// - Functions on values may be called from any thread; those that take a `KinoCall` only during
//   that call.
// - Nothing may unwind or longjmp across a function of either table.
// - Look at `size` before you read a field that a version after 1.0 added.

#ifndef KINO_PLUGIN_H
#define KINO_PLUGIN_H

#include <stddef.h>
#include <stdint.h>
#define KINO_MAGIC 0x47554C504F4E494Bull
#define KINO_MAJOR 1
#define KINO_MINOR 0

// The main memory.
#define DL_CPU 1

// The memory of an NVIDIA GPU.
#define DL_CUDA 2

// The memory of an Apple GPU.
#define DL_METAL 8

// Signed whole numbers.
#define DL_INT 0

// Unsigned whole numbers.
#define DL_UINT 1

// IEEE 754 floating-point numbers.
#define DL_FLOAT 2

// bfloat16.
#define DL_BFLOAT 4

// Truth values, a byte each.
#define DL_BOOL 6

// The elements must not be written.
#define DL_BITS_FLAG_READ_ONLY 1

// How a function ended: [`KINO_OK`], [`KINO_FAILED`] or [`KINO_CANCELLED`].
typedef int32_t KinoStatus;

// What a value is: one of the `KINO_…` kinds below.
typedef uint32_t KinoKind;

// UTF-8 text or bytes: pointer and length. Borrowed; null with length 0 where there is none.
typedef struct KinoStr {
  // The first byte.
  const uint8_t *data;
  // The number of bytes.
  size_t len;
} KinoStr;

// One call of a plugin by the host; valid until that call returns.
typedef struct KinoCall {
  uint8_t _private[0];
} KinoCall;

// An instance of a node; the plugin decides what lies behind the pointer.
typedef void KinoInstance;

// A value of the host; plugins see only pointers to it.
typedef struct KinoValue {
  uint8_t _private[0];
} KinoValue;

// What a plugin offers.
typedef struct KinoPlugin {
  // `KINO_MAGIC`.
  uint64_t magic;
  // `KINO_MAJOR` of the header that the plugin was built with.
  uint32_t major;
  // `KINO_MINOR` of that header.
  uint32_t minor;
  // The size of this table in bytes.
  size_t size;
  // What the plugin can do beyond what `minor` says; words with spaces between them.
  struct KinoStr capabilities;
  // The nodes and types, as JSON (`DESCRIPTOR.md`); lives as long as the library.
  struct KinoStr descriptor;
  // Makes an instance of a node. `saved` is what `save` of an earlier build gave, or null; a
  // plugin that cannot use it fails, and the host opens again without. On [`KINO_OK`],
  // `instance` belongs to the host until `close`.
  KinoStatus (*open)(struct KinoCall *call,
                     struct KinoStr node,
                     struct KinoStr saved,
                     KinoInstance **instance);
  // Computes. `inputs` are in the descriptor's order, null where nothing feeds a port; they are
  // lent. The plugin writes a value, which it gives away, or null to every place of `outputs`.
  // After a failure the host releases what was written.
  KinoStatus (*run)(struct KinoCall *call,
                    KinoInstance *instance,
                    struct KinoValue *const *inputs,
                    size_t input_count,
                    struct KinoValue **outputs,
                    size_t output_count);
  // Gives the state that a newer build may restore, as a value of kind [`KINO_BYTES`], or null
  // where there is none.
  KinoStatus (*save)(struct KinoCall *call, KinoInstance *instance, struct KinoValue **state);
  // Ends an instance. It must not fail; a panic within must be caught.
  void (*close)(KinoInstance *instance);
  // Says that no instance is left and none will be opened. The code stays mapped.
  void (*shutdown)(void);
} KinoPlugin;

// A value with a name: a field of a record, or an item of a list (whose name may be empty).
typedef struct KinoField {
  // The name.
  struct KinoStr name;
  // The value; lent, not given.
  struct KinoValue *value;
} KinoField;

// The type of an element.
typedef struct DLDataType {
  // [`DL_INT`], [`DL_UINT`], [`DL_FLOAT`], [`DL_BFLOAT`] or [`DL_BOOL`].
  uint8_t code;
  // Bits of one element.
  uint8_t bits;
  // 1 here.
  uint16_t lanes;
} DLDataType;

// The version of DLPack that a tensor was made for.
typedef struct DLPackVersion {
  // 1 here.
  uint32_t major;
  // 0 here.
  uint32_t minor;
} DLPackVersion;

// Where a tensor lies.
typedef struct DLDevice {
  // [`DL_CPU`], [`DL_CUDA`] or [`DL_METAL`].
  int32_t device_type;
  // Which of them.
  int32_t device_id;
} DLDevice;

// A tensor: where its elements lie and how.
typedef struct DLTensor {
  // The first byte of the memory.
  void *data;
  // Where that memory is.
  struct DLDevice device;
  // The number of dimensions.
  int32_t ndim;
  // The type of the elements.
  struct DLDataType dtype;
  // The size of each dimension.
  int64_t *shape;
  // Elements from one to the next along each dimension; null where the tensor is row-major
  // without gaps.
  int64_t *strides;
  // Where the first element lies, in bytes behind `data`.
  uint64_t byte_offset;
} DLTensor;

// A tensor with what is needed to give it back.
typedef struct DLManagedTensorVersioned {
  // The version of this structure.
  struct DLPackVersion version;
  // Belongs to whoever made the view.
  void *manager_ctx;
  // Gives the view back; to be called exactly once, from any thread.
  void (*deleter)(struct DLManagedTensorVersioned *view);
  // [`DL_BITS_FLAG_READ_ONLY`] or 0.
  uint64_t flags;
  // The tensor.
  struct DLTensor dl_tensor;
} DLManagedTensorVersioned;

// What the host offers. Every function is there, up to `size`.
typedef struct KinoHost {
  // The size of this table in bytes.
  size_t size;
  // `KINO_MAJOR` of the host.
  uint32_t major;
  // `KINO_MINOR` of the host.
  uint32_t minor;
  // What the host can do, words with spaces between them: `op.NAME` for each operation on
  // tensors, `cuda` or `metal` where tensors may lie there.
  struct KinoStr capabilities;
  // Says why the call is about to fail, and what to do about it (may be empty; where the message
  // is that of `error`, the host adds what it knows). `call` may be null in the entry.
  void (*fail)(struct KinoCall *call, struct KinoStr message, struct KinoStr hint);
  // Why the last host function failed on this thread; valid until the next host call.
  struct KinoStr (*error)(void);
  // Logs a message. Levels: 1 error, 2 warning, 3 information, 4 debugging, 5 tracing.
  void (*log)(struct KinoCall *call, uint32_t level, struct KinoStr target, struct KinoStr message);
  // Reports that `step` of `of` pieces of work are done.
  void (*progress)(struct KinoCall *call, uint64_t step, uint64_t of);
  // Whether the run was cancelled: 1 or 0. Ask between pieces of work, then return
  // [`KINO_CANCELLED`].
  uint32_t (*cancelled)(struct KinoCall *call);
  // Whether anybody reads output `index`: 1 or 0.
  uint32_t (*wants)(struct KinoCall *call, size_t index);
  // The stream that tensors on a CUDA device are ordered by, as a `CUstream`; null elsewhere.
  void *(*stream)(struct KinoCall *call);
  // Reads a file that the user granted, whole, as a value of kind [`KINO_BYTES`]. `path` is
  // relative to the graph. Fails where nothing was granted.
  KinoStatus (*read_file)(struct KinoCall *call, struct KinoStr path, struct KinoValue **bytes);
  // Counts one owner more; returns the same value.
  struct KinoValue *(*retain)(struct KinoValue *value);
  // Counts one owner less; the last one frees the value. Null is allowed.
  void (*release)(struct KinoValue *value);
  // What a value is; [`KINO_NONE`] for null.
  KinoKind (*kind)(struct KinoValue *value);
  // The name of the value's type, such as `Frames` or `example.depth`; lives as long as it.
  struct KinoStr (*type_name)(struct KinoValue *value);
  // The whole number `high·2^64 + low`. Also of a truth value: 0 or 1.
  KinoStatus (*get_int)(struct KinoValue *value, uint64_t *low, int64_t *high);
  // The real number; whole numbers widen.
  KinoStatus (*get_real)(struct KinoValue *value, double *real);
  // The text, or the bytes; lives as long as the value.
  KinoStatus (*get_bytes)(struct KinoValue *value, struct KinoStr *bytes);
  // The number of items of a list or fields of a record; 0 for all else.
  size_t (*len)(struct KinoValue *value);
  // An item of a list or a field of a record by its index, with its name (which lives as long as
  // `value`). The item belongs to the caller. Frames that lie in a file are read here.
  KinoStatus (*item)(struct KinoValue *value,
                     size_t index,
                     struct KinoStr *name,
                     struct KinoValue **item);
  // A field of a record by its name; null where it has none. It belongs to the caller.
  KinoStatus (*field)(struct KinoValue *value, struct KinoStr name, struct KinoValue **field);
  // Makes a text.
  KinoStatus (*new_text)(struct KinoStr text, struct KinoValue **value);
  // Makes bytes.
  KinoStatus (*new_bytes)(struct KinoStr bytes, struct KinoValue **value);
  // Makes the whole number `high·2^64 + low`.
  KinoStatus (*new_int)(uint64_t low, int64_t high, struct KinoValue **value);
  // Makes a real number.
  KinoStatus (*new_real)(double real, struct KinoValue **value);
  // Makes a truth value: 0 is false.
  KinoStatus (*new_bool)(uint32_t truth, struct KinoValue **value);
  // Makes a list.
  KinoStatus (*new_list)(const struct KinoField *items, size_t count, struct KinoValue **value);
  // Makes a record of a type: Latent (tensor, space?), Conditioning (positive, negative),
  // Patches (tokens, clips, patch), or an own type with any fields.
  KinoStatus (*new_record)(struct KinoStr type_name,
                           const struct KinoField *fields,
                           size_t count,
                           struct KinoValue **value);
  // Begins Frames of `fps` frames a second, a number above 0; NaN where that is not known.
  KinoStatus (*new_frames)(double fps, struct KinoValue **value);
  // Appends a tensor `[n, height, width, 3]` of f32 in 0…1 to Frames in the making. The host may
  // move them to a file, so that long videos fit.
  KinoStatus (*push_frames)(struct KinoValue *frames, struct KinoValue *chunk);
  // Makes a tensor of zeros in main memory, to be filled through `write_tensor`.
  KinoStatus (*new_tensor)(struct DLDataType dtype,
                           const int64_t *shape,
                           size_t ndim,
                           struct KinoValue **value);
  // A read-only view of a tensor where it lies. The caller gives it back by its deleter, at
  // latest before `shutdown` returns; the view keeps the tensor alive. Its `data` is null where
  // the host does not lend the memory of that device: operations take such a tensor, and
  // `to_host` brings it into main memory.
  KinoStatus (*view_tensor)(struct KinoValue *value, struct DLManagedTensorVersioned **view);
  // A writable view of a tensor from `new_tensor`, as long as nothing else has read it or taken
  // it up. At most one at a time; it is given back by its deleter, then the tensor can be used.
  KinoStatus (*write_tensor)(struct KinoValue *value, struct DLManagedTensorVersioned **view);
  // Computes one operation on tensors where they lie (`OPERATIONS.md`): its name, its tensors,
  // and its attributes as JSON (empty where it has none).
  KinoStatus (*op)(struct KinoStr name,
                   struct KinoValue *const *tensors,
                   size_t count,
                   struct KinoStr attributes,
                   struct KinoValue **value);
  // Since 1.1: as `new_tensor`, but nobody has written its elements: the plugin writes all of
  // them before it gives the view of `write_tensor` back, and reads none before.
  KinoStatus (*new_tensor_unwritten)(struct DLDataType dtype,
                                     const int64_t *shape,
                                     size_t ndim,
                                     struct KinoValue **value);
} KinoHost;

// The one symbol that a plugin exports, under the name `kino_plugin`. Its signature is the same in
// every version of the contract.
//
// `host` stays valid as long as the process lives. Returns a static table, or null after `fail`.
typedef const struct KinoPlugin *(*KinoEntry)(const struct KinoHost *host);

// It did what it should.
#define KINO_OK 0

// It could not; the reason has been said.
#define KINO_FAILED 1

// It stopped because the run was cancelled.
#define KINO_CANCELLED 2

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

// A tensor. So are values of the types Mask, ImageConditioning and Sigmas (f64, `[steps + 1]`).
#define KINO_TENSOR 5

// Several values, each with its name where it has one.
#define KINO_LIST 6

// A value of a named type with named fields: Frames, Latent, Patches, Conditioning, or a plugin's
// own type.
#define KINO_RECORD 7

// Bytes, such as a file's contents.
#define KINO_BYTES 8

// A value that can only be passed on: parts of models, guiders.
#define KINO_OPAQUE 9

#endif  /* KINO_PLUGIN_H */
