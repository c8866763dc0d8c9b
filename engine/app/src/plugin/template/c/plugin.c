// NAME: nodes for Kinograph, in C. The contract stands in kino_plugin.h.

#include <math.h>

#include "kino_plugin.h"

static const KinoHost *host;

// Goes to the end of a function with the error of a host function, if it is one: returned from the
// node, it reaches the user as it is.
#define TRY(does)           \
  do {                      \
    if ((error = (does))) { \
      goto end;             \
    }                       \
  } while (0)

// Multiplies one chunk of frames, [n, height, width, 3] of f32, and appends it to `frames`.
static KinoError *gain_chunk(KinoCall *call, const KinoValue *chunk, float gain,
                             KinoFramesBuilder *frames) {
  KinoTensorBuilder *builder = NULL;
  KinoValue *made = NULL;
  KinoError *error = NULL;
  DLTensor in, out;
  TRY(host->view_tensor(chunk, &in));
  TRY(host->new_tensor_builder(call, in.dtype, in.shape, 4, 0, &builder));
  TRY(host->builder_view(builder, &out));
  const float *x = in.data;
  float *y = out.data;
  int64_t count = 1;
  for (int i = 0; i < 4; i++) count *= in.shape[i];
  for (int64_t i = 0; i < count; i++) y[i] = x[i] * gain < 1 ? x[i] * gain : 1;
  error = host->finish_tensor(builder, &made);
  builder = NULL;  // a finished builder is gone
  if (!error) error = host->push_frames(frames, made);
end:
  host->release_tensor_builder(builder);
  host->release(made);
  return error;
}

static KinoError *run_node(KinoCall *call, KinoInstance *instance, const KinoValue *const *inputs,
                           size_t input_count, KinoValue **outputs, size_t output_count) {
  KinoValue *chunks = NULL, *rate = NULL, *chunk = NULL;
  KinoFramesBuilder *frames = NULL;
  KinoError *error = NULL;
  double gain = 1, fps = NAN;
  (void)instance, (void)input_count, (void)output_count;
  TRY(host->get_f64(inputs[1], &gain));
  TRY(host->field(inputs[0], kino_str("chunks"), &chunks));
  TRY(host->field(inputs[0], kino_str("fps"), &rate));
  if (rate) TRY(host->get_f64(rate, &fps));
  TRY(host->new_frames_builder(call, fps, &frames));
  size_t count = host->len(chunks);
  for (size_t i = 0; i < count; i++) {
    if (host->cancelled(call)) {
      error = host->new_error(kino_str("cancelled"), kino_str(""), kino_str("cancelled"));
      goto end;
    }
    TRY(host->item(chunks, i, NULL, &chunk));
    TRY(gain_chunk(call, chunk, (float)gain, frames));
    host->release(chunk);
    chunk = NULL;
    host->progress(call, i + 1, count);
  }
  error = host->finish_frames(frames, &outputs[0]);
  frames = NULL;
end:
  host->release_frames_builder(frames);
  host->release(chunk);
  host->release(chunks);
  host->release(rate);
  return error;
}

static KinoError *open_node(KinoCall *call, KinoStr node, KinoStr saved, KinoInstance **instance) {
  (void)call, (void)node, (void)saved;
  *instance = NULL;  // this node has no state
  return NULL;
}

static KinoError *save_node(KinoCall *call, KinoInstance *instance, KinoValue **state) {
  (void)call, (void)instance;
  *state = NULL;
  return NULL;
}

static void close_node(KinoInstance *instance) { (void)instance; }

static void shut_down(void) {}

static const KinoPlugin plugin = {
    KINO_MAGIC,
    KINO_MAJOR,
    KINO_MINOR,
    sizeof plugin,
    KINO_STR(""),
    KINO_STR("{\"nodes\": [{\"id\": \"NAME.gain\", \"version\": \"0.1.0\","
             " \"about\": \"Multiplies every frame by a gain.\","
             " \"inputs\": [{\"name\": \"frames\", \"type\": \"Frames\"},"
             " {\"name\": \"gain\", \"type\": \"Real\", \"default\": 1.5, \"range\": [0.0, 4.0]}],"
             " \"outputs\": [{\"name\": \"frames\", \"type\": \"Frames\", \"like\": \"frames\"}]}]}"),
    open_node,
    run_node,
    save_node,
    close_node,
    shut_down,
};

KINO_EXPORT const KinoPlugin *kino_plugin(const KinoHost *table) {
  host = table;
  return &plugin;
}
