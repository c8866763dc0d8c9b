// Plugins that do what they should not; MODE says what.

#include <signal.h>
#include <unistd.h>

#include "test_plugin.h"

static KinoStatus open_node(KinoCall *call, KinoStr node, KinoStr saved, KinoInstance **instance) {
  (void)call, (void)node, (void)saved;
  *instance = malloc(1);
  return KINO_OK;
}

// Pushes one tensor of frames, and writes to it again.
static KinoStatus refill(KinoCall *call, KinoValue **outputs) {
  int64_t shape[4] = {1, 2, 2, 3};
  DLDataType f32 = {DL_FLOAT, 32, 1};
  DLManagedTensorVersioned *view = NULL;
  KinoValue *chunk = NULL;
  KinoStatus status = host->new_frames(8, &outputs[0]);
  if (status == KINO_OK) status = host->new_tensor(f32, shape, 4, &chunk);
  if (status == KINO_OK) status = host->push_frames(outputs[0], chunk);
  if (status == KINO_OK && host->write_tensor(chunk, &view) == KINO_OK) view->deleter(view);
  else because(call);
  host->release(chunk);
  return view ? KINO_OK : KINO_FAILED;
}

static KinoStatus run_node(KinoCall *call, KinoInstance *instance, KinoValue *const *inputs,
                           size_t input_count, KinoValue **outputs, size_t output_count) {
  (void)instance, (void)inputs, (void)input_count, (void)output_count;
  KinoStr mode;
  if (host->get_bytes(inputs[0], &mode) != KINO_OK) return KINO_FAILED;
  if (!strncmp((const char *)mode.data, "abort", mode.len)) abort();
  if (!strncmp((const char *)mode.data, "segfault", mode.len)) { signal(SIGSEGV, SIG_DFL); raise(SIGSEGV); }
  if (!strncmp((const char *)mode.data, "hang", mode.len)) for (;;) sleep(1);
  if (!strncmp((const char *)mode.data, "spin", mode.len)) {
    while (!host->cancelled(call)) usleep(1000);
    return KINO_CANCELLED;
  }
  if (!strncmp((const char *)mode.data, "silent", mode.len)) return KINO_FAILED;
  if (!strncmp((const char *)mode.data, "lie", mode.len)) return host->new_int(1, 0, &outputs[0]);
  if (!strncmp((const char *)mode.data, "null", mode.len)) return KINO_OK;
  if (!strncmp((const char *)mode.data, "unasked", mode.len)) return KINO_CANCELLED;
  if (!strncmp((const char *)mode.data, "long", mode.len)) {
    size_t length = (size_t)70 << 20;
    uint8_t *letters = malloc(length);
    memset(letters, 'a', length);
    KinoStr text = {letters, length};
    KinoStatus status = host->new_text(text, &outputs[0]);
    free(letters);
    return status;
  }
  if (!strncmp((const char *)mode.data, "many", mode.len)) {
    enum { COUNT = 70, LENGTH = 1 << 20 };
    uint8_t *letters = malloc(LENGTH);
    KinoField items[COUNT];
    memset(letters, 'a', LENGTH);
    for (int i = 0; i < COUNT; i++) {
      KinoStr text = {letters, LENGTH};
      items[i].name = str("");
      host->new_text(text, &items[i].value);
    }
    KinoStatus status = host->new_list(items, COUNT, &outputs[0]);
    for (int i = 0; i < COUNT; i++) host->release(items[i].value);
    free(letters);
    return status;
  }
  if (!strncmp((const char *)mode.data, "deep", mode.len)) {
    KinoValue *value = NULL;
    host->new_int(0, 0, &value);
    for (int i = 0; i < 60; i++) {
      KinoField item = {str(""), value};
      KinoValue *list = NULL;
      host->new_list(&item, 1, &list);
      host->release(value);
      value = list;
    }
    outputs[0] = value;
    return KINO_OK;
  }
  if (!strncmp((const char *)mode.data, "huge", mode.len)) {
    int64_t shape[1] = {(int64_t)1 << 44};
    DLDataType f32 = {DL_FLOAT, 32, 1};
    if (host->new_tensor(f32, shape, 1, &outputs[0]) == KINO_OK) return KINO_OK;
    return because(call);
  }
  if (!strncmp((const char *)mode.data, "refill", mode.len)) return refill(call, outputs);
  if (!strncmp((const char *)mode.data, "secret", mode.len)) {
    KinoValue *bytes = NULL;
    if (host->read_file(call, str("../secret"), &bytes) == KINO_OK) return KINO_OK;
    return because(call);
  }
  return host->new_text(mode, &outputs[0]);
}

static KinoStatus save_node(KinoCall *call, KinoInstance *instance, KinoValue **state) {
  (void)call, (void)instance;
  *state = NULL;
  return KINO_OK;
}

static void close_node(KinoInstance *instance) {
  free(instance);
#ifdef ABORT_CLOSE
  abort();
#endif
}

static void shut_down(void) {}

#ifndef MAJOR
#define MAJOR KINO_MAJOR
#endif
#ifndef MAGIC
#define MAGIC KINO_MAGIC
#endif

#ifndef ENTRY
#define ENTRY kino_plugin
#endif

const KinoPlugin *ENTRY(const KinoHost *table) {
  static KinoPlugin plugin;
#ifdef GARBAGE
  const char *descriptor = "{\"nodes\": 3}";
#else
  const char *descriptor =
      "{\"nodes\": [{\"id\": \"bad.node\", \"version\": \"1\", \"inputs\": [{\"name\": \"mode\","
      " \"type\": \"Text\"}], \"outputs\": [{\"name\": \"text\", \"type\": \"Text\"}]}]}";
#endif
  fill_table(&plugin, table, descriptor);
#ifdef ABORT_ENTRY
  abort();
#endif
#ifdef REFUSE
  host->fail(NULL, str("this machine has no flux capacitor"), str("buy one"));
  return NULL;
#endif
  plugin.magic = MAGIC;
  plugin.major = MAJOR;
#ifdef SMALL
  plugin.size = 8;
#endif
#ifdef NO_SAVE
  plugin.save = NULL;
#endif
  return &plugin;
}
