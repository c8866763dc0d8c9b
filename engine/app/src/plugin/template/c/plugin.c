// NAME: nodes for Kinograph, in C. The contract stands in kino_plugin.h.

#include <math.h>

#include "kino_plugin.h"

static const KinoHost *host;

// Appends a chunk of frames times `gain`: [n, height, width, 3] of f32, row-major. An error of the
// host is returned as it is.
static KinoError *gain_chunk(KinoCall *call, const KinoValue *chunk, float gain, KinoFramesBuilder *frames) {
  DLTensor in, out;
  KinoTensorBuilder *builder = NULL;
  KinoValue *made = NULL;
  KinoError *error = host->view_tensor(chunk, &in);
  if (!error) error = host->new_tensor_builder(call, in.dtype, in.shape, 4, 0, &builder);
  if (!error) error = host->builder_view(builder, &out);
  if (!error) {
    const float *x = (const float *)((const char *)in.data + in.byte_offset);
    float *y = (float *)((char *)out.data + out.byte_offset);
    int64_t count = in.shape[0] * in.shape[1] * in.shape[2] * in.shape[3];
    for (int64_t i = 0; i < count; i++) y[i] = x[i] * gain < 1 ? x[i] * gain : 1;
    error = host->finish_tensor(builder, &made);
    builder = NULL;  // gone, whatever came of it
  }
  if (!error) error = host->push_frames(frames, made);
  host->release_tensor_builder(builder);
  host->release(made);
  return error;
}

static KinoError *run_node(KinoCall *call, KinoInstance *instance, const KinoValue *const *inputs,
                           size_t input_count, KinoValue **outputs, size_t output_count) {
  KinoValue *chunks = NULL, *rate = NULL;
  KinoFramesBuilder *frames = NULL;
  double gain, fps = NAN;
  (void)instance, (void)input_count, (void)output_count;
  KinoError *error = host->get_f64(inputs[1], &gain);
  if (!error) error = host->field(inputs[0], kino_str("chunks"), &chunks);
  if (!error) error = host->field(inputs[0], kino_str("fps"), &rate);
  if (!error && rate) error = host->get_f64(rate, &fps);
  if (!error) error = host->new_frames_builder(call, fps, &frames);
  for (size_t i = 0, count = host->len(chunks); !error && i < count; i++) {
    KinoValue *chunk = NULL;
    if (host->cancelled(call)) {
      error = host->new_error(kino_str("cancelled"), kino_str(""), kino_str("cancelled"));
      break;
    }
    error = host->item(chunks, i, NULL, &chunk);
    if (!error) error = gain_chunk(call, chunk, (float)gain, frames);
    host->release(chunk);
    host->progress(call, i + 1, count);
  }
  if (!error) {
    error = host->finish_frames(frames, &outputs[0]);
    frames = NULL;
  }
  host->release(chunks);
  host->release(rate);
  host->release_frames_builder(frames);
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

const KinoPlugin *kino_plugin(const KinoHost *table) {
  static const KinoPlugin plugin = {
      .magic = KINO_MAGIC,
      .major = KINO_MAJOR,
      .minor = KINO_MINOR,
      .size = sizeof plugin,
      .descriptor = KINO_STR(
          "{\"nodes\": [{\"id\": \"NAME.gain\", \"version\": \"0.1.0\","
          " \"about\": \"Multiplies every frame by a gain.\","
          " \"inputs\": [{\"name\": \"frames\", \"type\": \"Frames\"},"
          " {\"name\": \"gain\", \"type\": \"Real\", \"default\": 1.5, \"range\": [0.0, 4.0]}],"
          " \"outputs\": [{\"name\": \"frames\", \"type\": \"Frames\", \"like\": \"frames\"}]}]}"),
      .open = open_node,
      .run = run_node,
      .save = save_node,
      .close = close_node,
      .shutdown = shut_down,
  };
  host = table;
  return &plugin;
}
