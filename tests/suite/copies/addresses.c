// A plugin that says where the tensors lie that it reads and writes: of one chunk of frames that it
// is given, of a tensor, and of the frames that it makes.

#define STATELESS
#include "test_plugin.h"

static KinoError *read_address(const KinoValue *tensor, KinoValue **address) {
  DLTensor view;
  KinoError *error = host->view_tensor(tensor, &view);
  if (error) return error;
  return host->new_u64((uint64_t)(uintptr_t)view.data + view.byte_offset, address);
}

// in: frames, a tensor. out: where both lie, frames, where they were written.
static KinoError *run_node(KinoCall *call, KinoInstance *instance, const KinoValue *const *inputs,
                           size_t input_count, KinoValue **outputs, size_t output_count) {
  KinoValue *chunks = NULL, *chunk = NULL, *made = NULL;
  KinoTensorBuilder *builder = NULL;
  KinoFramesBuilder *frames = NULL;
  KinoError *error = NULL;
  DLTensor view;
  DLDataType f32 = {kDLFloat, 32, 1};
  int64_t shape[4] = {2, 4, 6, 3};
  (void)instance, (void)input_count, (void)output_count;
  TRY(host->field(inputs[0], kino_str("chunks"), &chunks));
  TRY(host->item(chunks, 0, NULL, &chunk));
  TRY(read_address(chunk, &outputs[0]));
  TRY(read_address(inputs[1], &outputs[1]));
  TRY(host->new_frames_builder(call, 8, &frames));
  TRY(host->new_tensor_builder(call, f32, shape, 4, 1, &builder));
  TRY(host->builder_view(builder, &view));
  ((float *)view.data)[143] = 0.5f;
  error = host->finish_tensor(builder, &made);
  builder = NULL;
  if (error) goto end;
  TRY(host->push_frames(frames, made));
  TRY(host->new_u64((uint64_t)(uintptr_t)view.data, &outputs[3]));
  error = host->finish_frames(frames, &outputs[2]);
  frames = NULL;
end:
  host->release(chunks), host->release(chunk), host->release(made);
  host->release_tensor_builder(builder);
  host->release_frames_builder(frames);
  return error;
}

KINO_EXPORT const KinoPlugin *kino_plugin(const KinoHost *table) {
  static KinoPlugin plugin;
  const char *descriptor =
      "{\"nodes\": [{\"id\": \"see.addresses\", \"version\": \"1\", \"inputs\": ["
      "{\"name\": \"frames\", \"type\": \"Frames\"}, {\"name\": \"tensor\", \"type\":"
      " \"Tensor\"}], \"outputs\": [{\"name\": \"chunk\", \"type\": \"Int\"}, {\"name\":"
      " \"tensor\", \"type\": \"Int\"}, {\"name\": \"frames\", \"type\": \"Frames\"},"
      " {\"name\": \"written\", \"type\": \"Int\"}]}]}";
  return fill_table(&plugin, table, descriptor);
}
