// A plugin that says where the tensors lie that it reads and writes: of one chunk of frames that it
// is given, of a tensor, and of the frames that it makes.

#define STATELESS
#include "test_plugin.h"

static KinoStatus read_address(KinoValue *tensor, KinoValue **address) {
  DLManagedTensorVersioned *view = NULL;
  if (host->view_tensor(tensor, &view) != KINO_OK) return KINO_FAILED;
  uint64_t at = (uint64_t)(uintptr_t)view->dl_tensor.data + view->dl_tensor.byte_offset;
  view->deleter(view);
  return host->new_int(at, 0, address);
}

// in: frames, a tensor. out: where both lie, frames, where they were written.
static KinoStatus run_node(KinoCall *call, KinoInstance *instance, KinoValue *const *inputs,
                           size_t input_count, KinoValue **outputs, size_t output_count) {
  KinoValue *chunks = NULL, *chunk = NULL, *made = NULL;
  DLManagedTensorVersioned *view = NULL;
  KinoStr name;
  DLDataType f32 = {DL_FLOAT, 32, 1};
  int64_t shape[4] = {2, 4, 6, 3};
  (void)instance, (void)input_count, (void)output_count;
  if (host->field(inputs[0], str("chunks"), &chunks) == KINO_OK &&
      host->item(chunks, 0, &name, &chunk) == KINO_OK &&
      read_address(chunk, &outputs[0]) == KINO_OK &&
      read_address(inputs[1], &outputs[1]) == KINO_OK &&
      host->new_frames(8, &outputs[2]) == KINO_OK &&
      host->new_tensor(f32, shape, 4, &made) == KINO_OK &&
      host->write_tensor(made, &view) == KINO_OK) {
    uint64_t at = (uint64_t)(uintptr_t)view->dl_tensor.data;
    ((float *)view->dl_tensor.data)[143] = 0.5f;
    view->deleter(view);
    if (host->push_frames(outputs[2], made) == KINO_OK &&
        host->new_int(at, 0, &outputs[3]) == KINO_OK) {
      goto end;
    }
  }
  because(call);
end:
  host->release(chunks);
  host->release(chunk);
  host->release(made);
  return outputs[3] ? KINO_OK : KINO_FAILED;
}

const KinoPlugin *kino_plugin(const KinoHost *table) {
  static KinoPlugin plugin;
  const char *descriptor =
      "{\"nodes\": [{\"id\": \"see.addresses\", \"version\": \"1\", \"inputs\": ["
      "{\"name\": \"frames\", \"type\": \"Frames\"}, {\"name\": \"tensor\", \"type\":"
      " \"Tensor\"}], \"outputs\": [{\"name\": \"chunk\", \"type\": \"Int\"}, {\"name\":"
      " \"tensor\", \"type\": \"Int\"}, {\"name\": \"frames\", \"type\": \"Frames\"},"
      " {\"name\": \"written\", \"type\": \"Int\"}]}]}";
  return fill_table(&plugin, table, descriptor);
}
