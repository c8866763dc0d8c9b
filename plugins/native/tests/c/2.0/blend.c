// As of 2.0: every later host must load what is built of this folder. Never change it.
// A plugin in C against kino_plugin.h: `c.blend` mixes two videos, frame by frame.
//
// It is small and real: it checks its inputs, fills tensors of the host in place, reports progress,
// and stops when the run is cancelled.

#include "test_plugin.h"

static int is_frames(const DLTensor *t) {
  return t->ndim == 4 && t->shape[3] == 3 && t->dtype.code == kDLFloat && t->dtype.bits == 32 &&
         t->device.device_type == kDLCPU;
}

// Blends one chunk of frames; both are [n, h, w, 3] of f32 without gaps.
static KinoError *blend_chunk(KinoCall *call, const KinoValue *a, const KinoValue *b, float weight,
                              KinoFramesBuilder *frames) {
  DLTensor x, y, out;
  KinoTensorBuilder *builder = NULL;
  KinoValue *made = NULL;
  KinoError *error = NULL;
  TRY(host->view_tensor(a, &x));
  TRY(host->view_tensor(b, &y));
  if (!is_frames(&x) || !is_frames(&y) || memcmp(x.shape, y.shape, 4 * sizeof(int64_t)) != 0) {
    error = fail("`a` and `b` differ in size or number of frames",
                 "`frames.resize` and `frames.trim` make them alike", "blend.sizes");
    goto end;
  }
  TRY(host->new_tensor_builder(call, x.dtype, x.shape, 4, 0, &builder));
  TRY(host->builder_view(builder, &out));
  int64_t count = 1;
  for (int i = 0; i < 4; i++) count *= x.shape[i];
  const float *p = x.data, *q = y.data;
  float *r = out.data;
  for (int64_t i = 0; i < count; i++) r[i] = p[i] + weight * (q[i] - p[i]);
  error = host->finish_tensor(builder, &made);
  builder = NULL;
  if (!error) error = host->push_frames(frames, made);
end:
  host->release_tensor_builder(builder);
  host->release(made);
  return error;
}

static KinoError *blend(KinoCall *call, const KinoValue *const *inputs, KinoValue **outputs) {
  double weight = 0, fps = 0;
  uint64_t quiet_nan = 0x7ff8000000000000u;
  KinoValue *chunks[2] = {NULL, NULL}, *rate = NULL, *a = NULL, *b = NULL;
  KinoFramesBuilder *frames = NULL;
  KinoError *error = NULL;
  memcpy(&fps, &quiet_nan, sizeof fps);
  TRY(host->get_f64(inputs[2], &weight));
  TRY(host->field(inputs[0], kino_str("chunks"), &chunks[0]));
  TRY(host->field(inputs[1], kino_str("chunks"), &chunks[1]));
  TRY(host->field(inputs[0], kino_str("fps"), &rate));
  if (rate) TRY(host->get_f64(rate, &fps));
  TRY(host->new_frames_builder(call, fps, &frames));
  size_t count = host->len(chunks[0]);
  if (count != host->len(chunks[1])) {
    error = fail("`a` and `b` have different numbers of frames", "", "");
    goto end;
  }
  for (size_t i = 0; i < count; i++) {
    if (host->cancelled(call)) {
      error = cancelled();
      goto end;
    }
    TRY(host->item(chunks[0], i, NULL, &a));
    TRY(host->item(chunks[1], i, NULL, &b));
    TRY(blend_chunk(call, a, b, (float)weight, frames));
    host->release(a), host->release(b);
    a = b = NULL;
    host->progress(call, i + 1, count);
  }
  error = host->finish_frames(frames, &outputs[0]);
  frames = NULL;
end:
  host->release(chunks[0]), host->release(chunks[1]), host->release(rate);
  host->release(a), host->release(b);
  host->release_frames_builder(frames);
  return error;
}

// What an instance is decides the plugin: how often it ran.
struct KinoInstance {
  uint64_t runs;
};

static KinoError *open_node(KinoCall *call, KinoStr node, KinoStr saved, KinoInstance **instance) {
  (void)call, (void)node;
  KinoInstance *opened = calloc(1, sizeof *opened);
  if (!opened) return fail("no memory", "", "out-of-memory");
  if (saved.data && saved.len == sizeof *opened) memcpy(opened, saved.data, sizeof *opened);
  *instance = opened;
  return NULL;
}

static KinoError *run_node(KinoCall *call, KinoInstance *instance, const KinoValue *const *inputs,
                           size_t input_count, KinoValue **outputs, size_t output_count) {
  instance->runs += 1;
  if (input_count == 3 && output_count == 1) return blend(call, inputs, outputs);
  if (input_count == 0 && output_count == 1) return host->new_u64(instance->runs, &outputs[0]);
  return fail("the host does not follow the descriptor", "", "");
}

static KinoError *save_node(KinoCall *call, KinoInstance *instance, KinoValue **state) {
  (void)call;
  KinoStr bytes = {(const char *)instance, sizeof *instance};
  return host->new_bytes(bytes, state);
}

static void close_node(KinoInstance *instance) { free(instance); }

static void shut_down(void) {}

static const char descriptor[] =
    "{\"nodes\": [{\"id\": \"c.blend\", \"version\": \"1.0.0\", \"about\": \"Mixes two videos.\","
    " \"inputs\": [{\"name\": \"a\", \"type\": \"Frames\", \"about\": \"The first video.\"},"
    " {\"name\": \"b\", \"type\": \"Frames\", \"about\": \"The second video, of the same size.\"},"
    " {\"name\": \"weight\", \"type\": \"Real\", \"default\": 0.5, \"range\": [0.0, 1.0],"
    " \"about\": \"0 is the first video, 1 the second.\"}],"
    " \"outputs\": [{\"name\": \"frames\", \"type\": \"Frames\", \"like\": \"a\"}]},"
    " {\"id\": \"c.count\", \"version\": \"1.0.0\", \"about\": \"Counts its runs.\","
    " \"state\": true, \"outputs\": [{\"name\": \"count\", \"type\": \"Int\"}]}]}";

KINO_EXPORT const KinoPlugin *kino_plugin(const KinoHost *table) {
  static KinoPlugin plugin;
  return fill_table(&plugin, table, descriptor);
}
