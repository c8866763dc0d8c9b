// Nodes for Kinograph as a component, in C: what `wit-bindgen c` declares is written here.
#include <stdlib.h>
#include <string.h>

#include "plugin.h"

typedef kino_plugin_host_own_value_t Value;
typedef kino_plugin_host_failure_t Failure;
typedef exports_kino_plugin_node_option_own_value_t Given;

// What an instance keeps from `open` to `run`: which node it is, and its state.
struct exports_kino_plugin_node_instance_t {
  char node[16];
  struct {
    uint64_t runs, before;
  } state;
};

#define TRY(does) \
  do {            \
    if (!(does)) return false; \
  } while (0)

static kino_plugin_host_borrow_value_t lend(Value value) { return kino_plugin_host_borrow_value(value); }

static plugin_string_t text(const char *s) {
  plugin_string_t made;
  plugin_string_set(&made, s);
  return made;
}

void exports_kino_plugin_node_describe(plugin_string_t *ret) {
  plugin_string_dup(
      ret,
      "{\"nodes\": ["
      "{\"id\": \"c.gain\", \"version\": \"1.0.0\", \"about\": \"Multiplies every frame by a gain.\","
      " \"inputs\": [{\"name\": \"frames\", \"type\": \"Frames\"},"
      " {\"name\": \"gain\", \"type\": \"Real\", \"default\": 1.5, \"range\": [0.0, 4.0]}],"
      " \"outputs\": [{\"name\": \"frames\", \"type\": \"Frames\", \"like\": \"frames\"}]},"
      "{\"id\": \"c.join\", \"version\": \"1.0.0\", \"about\": \"A text, twice.\","
      " \"inputs\": [{\"name\": \"text\", \"type\": \"Text\", \"default\": \"a\"}],"
      " \"outputs\": [{\"name\": \"text\", \"type\": \"Text\"}]},"
      "{\"id\": \"c.count\", \"version\": \"1.0.0\", \"state\": true,"
      " \"about\": \"How often the builds before this one ran.\","
      " \"inputs\": [{\"name\": \"of\", \"type\": \"Any\"}],"
      " \"outputs\": [{\"name\": \"runs\", \"type\": \"Int\"}]},"
      "{\"id\": \"c.read\", \"version\": \"1.0.0\", \"about\": \"The bytes of a file.\","
      " \"inputs\": [{\"name\": \"path\", \"type\": \"Path\"}],"
      " \"outputs\": [{\"name\": \"bytes\", \"type\": \"Tensor\"}]}"
      "]}");
}

bool exports_kino_plugin_node_static_instance_open(plugin_string_t *node, plugin_list_u8_t *saved,
    exports_kino_plugin_node_own_instance_t *ret, Failure *err) {
  (void)err;
  exports_kino_plugin_node_instance_t *made = calloc(1, sizeof *made);
  size_t most = node->len < sizeof made->node - 1 ? node->len : sizeof made->node - 1;
  memcpy(made->node, node->ptr, most);
  if (saved && saved->len == sizeof made->state) {
    memcpy(&made->state, saved->ptr, saved->len);
    made->state.before = made->state.runs;
  }
  // Arguments belong to this function, as all that is given to an exported one.
  plugin_string_free(node);
  if (saved) plugin_list_u8_free(saved);
  *ret = exports_kino_plugin_node_instance_new(made);
  return true;
}

void exports_kino_plugin_node_instance_destructor(exports_kino_plugin_node_instance_t *it) { free(it); }

bool exports_kino_plugin_node_method_instance_save(exports_kino_plugin_node_borrow_instance_t it,
    plugin_option_list_u8_t *ret, Failure *err) {
  (void)err;
  ret->is_some = strcmp(it->node, "c.count") == 0;
  if (ret->is_some) {
    ret->val.len = sizeof it->state;
    ret->val.ptr = malloc(sizeof it->state);
    memcpy(ret->val.ptr, &it->state, sizeof it->state);
  }
  return true;
}

enum { PIECE = 1 << 20 };

// Multiplies a chunk, piece by piece: the plugin needs two pieces of memory.
static bool gain_chunk(Value chunk, float gain, Value *made, Failure *err) {
  plugin_list_u64_t dims;
  kino_plugin_host_own_tensor_builder_t builder;
  plugin_string_t f32 = text("f32");
  uint64_t size;
  TRY(kino_plugin_host_method_value_size(lend(chunk), &size, err));
  TRY(kino_plugin_host_method_value_dims(lend(chunk), &dims, err));
  TRY(kino_plugin_host_static_tensor_builder_new(&f32, &dims, &builder, err));
  plugin_list_u64_free(&dims);
  for (uint64_t at = 0; at < size; at += PIECE) {
    uint32_t length = size - at < PIECE ? (uint32_t)(size - at) : PIECE;
    plugin_list_u8_t piece;
    TRY(kino_plugin_host_method_value_read(lend(chunk), at, length, &piece, err));
    float *samples = (float *)piece.ptr;
    for (size_t i = 0; i < piece.len / 4; i++) {
      float x = samples[i] * gain;
      samples[i] = x < 1 ? x : 1;
    }
    TRY(kino_plugin_host_method_tensor_builder_write(
        kino_plugin_host_borrow_tensor_builder(builder), at, &piece, err));
    plugin_list_u8_free(&piece);
  }
  return kino_plugin_host_static_tensor_builder_finish(builder, made, err);
}

static bool gain_frames(Value frames, Value by, Value *made, Failure *err) {
  double gain, rate, *fps = NULL;
  kino_plugin_host_option_own_value_t chunks, found;
  kino_plugin_host_own_frames_builder_t builder;
  plugin_string_t name = text("chunks");
  TRY(kino_plugin_host_method_value_as_f64(lend(by), &gain, err));
  TRY(kino_plugin_host_method_value_field(lend(frames), &name, &chunks, err));
  name = text("fps");
  TRY(kino_plugin_host_method_value_field(lend(frames), &name, &found, err));
  if (found.is_some) {
    TRY(kino_plugin_host_method_value_as_f64(lend(found.val), &rate, err));
    kino_plugin_host_value_drop_own(found.val);
    fps = &rate;
  }
  TRY(kino_plugin_host_static_frames_builder_new(fps, &builder, err));
  uint32_t count = kino_plugin_host_method_value_len(lend(chunks.val));
  for (uint32_t i = 0; i < count; i++) {
    kino_plugin_host_tuple2_string_own_value_t item;
    Value brighter;
    if (kino_plugin_host_cancelled()) {
      err->tag = KINO_PLUGIN_TYPES_FAILURE_CANCELLED;
      return false;
    }
    TRY(kino_plugin_host_method_value_item(lend(chunks.val), i, &item, err));
    TRY(gain_chunk(item.f1, (float)gain, &brighter, err));
    TRY(kino_plugin_host_method_frames_builder_push(
        kino_plugin_host_borrow_frames_builder(builder), lend(brighter), err));
    plugin_string_free(&item.f0);
    kino_plugin_host_value_drop_own(item.f1);
    kino_plugin_host_value_drop_own(brighter);
    kino_plugin_host_progress(i + 1, count);
  }
  kino_plugin_host_value_drop_own(chunks.val);
  return kino_plugin_host_static_frames_builder_finish(builder, made, err);
}

static bool join(Value of, Value *made, Failure *err) {
  plugin_string_t found, twice;
  TRY(kino_plugin_host_method_value_as_text(lend(of), &found, err));
  twice.len = 2 * found.len;
  twice.ptr = malloc(twice.len + 1);
  memcpy(twice.ptr, found.ptr, found.len);
  memcpy(twice.ptr + found.len, found.ptr, found.len);
  bool good = kino_plugin_host_new_text(&twice, made, err);
  plugin_string_free(&found);
  free(twice.ptr);
  return good;
}

// An error of the host that is passed on is the node's: so for all functions that end with `err`.
static bool read(Value of, Value *made, Failure *err) {
  plugin_string_t path;
  TRY(kino_plugin_host_method_value_as_text(lend(of), &path, err));
  bool good = kino_plugin_host_read_file(&path, made, err);
  plugin_string_free(&path);
  return good;
}

bool exports_kino_plugin_node_method_instance_run(exports_kino_plugin_node_borrow_instance_t it,
    exports_kino_plugin_node_list_option_own_value_t *inputs,
    exports_kino_plugin_node_list_option_own_value_t *ret, Failure *err) {
  Value made;
  bool good;
  Given *in = inputs->ptr;
  it->state.runs += 1;
  if (strcmp(it->node, "c.gain") == 0) {
    good = gain_frames(in[0].val, in[1].val, &made, err);
  } else if (strcmp(it->node, "c.count") == 0) {
    good = kino_plugin_host_new_u64(it->state.before, &made, err);
  } else if (strcmp(it->node, "c.read") == 0) {
    good = read(in[0].val, &made, err);
  } else {
    good = join(in[0].val, &made, err);
  }
  // Inputs belong to this function, and `…_free` releases memory, not handles.
  for (size_t i = 0; i < inputs->len; i++) {
    if (in[i].is_some) kino_plugin_host_value_drop_own(in[i].val);
  }
  exports_kino_plugin_node_list_option_own_value_free(inputs);
  if (!good) return false;
  ret->len = 1;
  ret->ptr = malloc(sizeof *ret->ptr);
  ret->ptr[0] = (Given){true, made};
  return true;
}
