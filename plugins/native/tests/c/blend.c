// A plugin in C against kino_plugin.h: `c.blend` mixes two videos, frame by frame.
//
// It is small and real: it checks its inputs, fills tensors of the host in place, reports progress,
// and stops when the run is cancelled.

#include "test_plugin.h"

static int is_frames(const DLTensor *t) {
  return t->ndim == 4 && t->shape[3] == 3 && t->dtype.code == DL_FLOAT && t->dtype.bits == 32 &&
         t->device.device_type == DL_CPU;
}

// Blends one chunk of frames; both are [n, h, w, 3] of f32 without gaps.
static KinoStatus blend_chunk(KinoCall *call, KinoValue *a, KinoValue *b, float weight,
                              KinoValue *frames) {
  DLManagedTensorVersioned *x = NULL, *y = NULL, *out = NULL;
  KinoValue *made = NULL;
  KinoStatus status = KINO_FAILED;
  if (host->view_tensor(a, &x) != KINO_OK || host->view_tensor(b, &y) != KINO_OK) {
    status = because(call);
    goto end;
  }
  if (!is_frames(&x->dl_tensor) || !is_frames(&y->dl_tensor) ||
      memcmp(x->dl_tensor.shape, y->dl_tensor.shape, 4 * sizeof(int64_t)) != 0) {
    host->fail(call, str("`a` and `b` differ in size or number of frames"),
               str("`frames.resize` and `frames.trim` make them alike"));
    goto end;
  }
  if (host->new_tensor(x->dl_tensor.dtype, x->dl_tensor.shape, 4, &made) != KINO_OK ||
      host->write_tensor(made, &out) != KINO_OK) {
    status = because(call);
    goto end;
  }
  int64_t count = 1;
  for (int i = 0; i < 4; i++) count *= x->dl_tensor.shape[i];
  const float *p = x->dl_tensor.data, *q = y->dl_tensor.data;
  float *r = out->dl_tensor.data;
  for (int64_t i = 0; i < count; i++) r[i] = p[i] + weight * (q[i] - p[i]);
  out->deleter(out);
  out = NULL;
  status = host->push_frames(frames, made) == KINO_OK ? KINO_OK : because(call);
end:
  if (out) out->deleter(out);
  if (x) x->deleter(x);
  if (y) y->deleter(y);
  host->release(made);
  return status;
}

static KinoStatus blend(KinoCall *call, KinoValue *const *inputs, KinoValue **outputs) {
  double weight = 0, fps = 0;
  KinoValue *chunks[2] = {NULL, NULL}, *rate = NULL, *frames = NULL;
  KinoStatus status = KINO_FAILED;
  if (host->get_real(inputs[2], &weight) != KINO_OK ||
      host->field(inputs[0], str("chunks"), &chunks[0]) != KINO_OK ||
      host->field(inputs[1], str("chunks"), &chunks[1]) != KINO_OK ||
      host->field(inputs[0], str("fps"), &rate) != KINO_OK) {
    status = because(call);
    goto end;
  }
  uint64_t quiet_nan = 0x7ff8000000000000u;
  memcpy(&fps, &quiet_nan, sizeof fps);
  if (rate) host->get_real(rate, &fps);
  if (host->new_frames(fps, &frames) != KINO_OK) {
    status = because(call);
    goto end;
  }
  size_t count = host->len(chunks[0]);
  if (count != host->len(chunks[1])) {
    host->fail(call, str("`a` and `b` have different numbers of frames"), str(""));
    goto end;
  }
  for (size_t i = 0; i < count; i++) {
    KinoValue *a = NULL, *b = NULL;
    KinoStr name;
    if (host->cancelled(call)) {
      status = KINO_CANCELLED;
      goto end;
    }
    status = KINO_FAILED;
    if (host->item(chunks[0], i, &name, &a) == KINO_OK &&
        host->item(chunks[1], i, &name, &b) == KINO_OK) {
      status = blend_chunk(call, a, b, (float)weight, frames);
    } else {
      status = because(call);
    }
    host->release(a);
    host->release(b);
    if (status != KINO_OK) goto end;
    host->progress(call, i + 1, count);
  }
  outputs[0] = host->retain(frames);
  status = KINO_OK;
end:
  host->release(chunks[0]);
  host->release(chunks[1]);
  host->release(rate);
  host->release(frames);
  return status;
}

// The instance is what was counted: how often it ran.
static KinoStatus open_node(KinoCall *call, KinoStr node, KinoStr saved, KinoInstance **instance) {
  uint64_t *runs = calloc(1, sizeof *runs);
  (void)node;
  if (!runs) {
    host->fail(call, str("no memory"), str(""));
    return KINO_FAILED;
  }
  if (saved.data && saved.len == sizeof *runs) memcpy(runs, saved.data, sizeof *runs);
  *instance = runs;
  return KINO_OK;
}

static KinoStatus run_node(KinoCall *call, KinoInstance *instance, KinoValue *const *inputs,
                           size_t input_count, KinoValue **outputs, size_t output_count) {
  uint64_t *runs = instance;
  *runs += 1;
  if (input_count == 3 && output_count == 1) return blend(call, inputs, outputs);
  if (input_count == 0 && output_count == 1) {
    return host->new_int(*runs, 0, &outputs[0]) == KINO_OK ? KINO_OK : because(call);
  }
  host->fail(call, str("the host does not follow the descriptor"), str(""));
  return KINO_FAILED;
}

static KinoStatus save_node(KinoCall *call, KinoInstance *instance, KinoValue **state) {
  KinoStr bytes = {instance, sizeof(uint64_t)};
  return host->new_bytes(bytes, state) == KINO_OK ? KINO_OK : because(call);
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

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

EXPORT const KinoPlugin *kino_plugin(const KinoHost *table) {
  static KinoPlugin plugin;
  return fill_table(&plugin, table, descriptor);
}
