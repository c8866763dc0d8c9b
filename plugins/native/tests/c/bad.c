// Plugins that do what they should not; MODE says what.

#include <signal.h>
#include <unistd.h>

#include "test_plugin.h"

static KinoError *open_node(KinoCall *call, KinoStr node, KinoStr saved, KinoInstance **instance) {
  (void)call, (void)node, (void)saved;
  *instance = malloc(1);
  return NULL;
}

static int is(KinoStr text, const char *name) {
  return text.len == strlen(name) && !memcmp(text.data, name, text.len);
}

static KinoError *long_text(KinoValue **output) {
  size_t length = (size_t)70 << 20;
  char *letters = malloc(length);
  memset(letters, 'a', length);
  KinoStr text = {letters, length};
  KinoError *error = host->new_text(text, output);
  free(letters);
  return error;
}

static KinoError *many_texts(KinoValue **output) {
  enum { COUNT = 70, LENGTH = 1 << 20 };
  char *letters = malloc(LENGTH);
  KinoValue *texts[COUNT];
  KinoField items[COUNT];
  memset(letters, 'a', LENGTH);
  for (int i = 0; i < COUNT; i++) {
    KinoStr text = {letters, LENGTH};
    items[i].name = kino_str("");
    host->new_text(text, &texts[i]);
    items[i].value = texts[i];
  }
  KinoError *error = host->new_list(items, COUNT, output);
  for (int i = 0; i < COUNT; i++) host->release(texts[i]);
  free(letters);
  return error;
}

static KinoError *deep_list(KinoValue **output) {
  KinoValue *value = NULL;
  host->new_i64(0, &value);
  for (int i = 0; i < 60; i++) {
    KinoField item = {kino_str(""), value};
    KinoValue *list = NULL;
    host->new_list(&item, 1, &list);
    host->release(value);
    value = list;
  }
  *output = value;
  return NULL;
}

static KinoError *run_node(KinoCall *call, KinoInstance *instance, const KinoValue *const *inputs,
                           size_t input_count, KinoValue **outputs, size_t output_count) {
  (void)instance, (void)input_count, (void)output_count;
  KinoStr mode;
  KinoError *error = host->get_bytes(inputs[0], &mode);
  if (error) return error;
  if (is(mode, "abort")) abort();
  if (is(mode, "segfault")) signal(SIGSEGV, SIG_DFL), raise(SIGSEGV);
  if (is(mode, "hang")) for (;;) sleep(1);
  if (is(mode, "spin")) {
    while (!host->cancelled(call)) usleep(1000);
    return cancelled();
  }
  if (is(mode, "silent")) return fail("", "", "");
  if (is(mode, "lie")) return host->new_i64(1, &outputs[0]);
  if (is(mode, "null")) return NULL;
  if (is(mode, "unasked")) return cancelled();
  if (is(mode, "long")) return long_text(&outputs[0]);
  if (is(mode, "many")) return many_texts(&outputs[0]);
  if (is(mode, "deep")) return deep_list(&outputs[0]);
  if (is(mode, "huge")) {
    int64_t shape[1] = {(int64_t)1 << 44};
    DLDataType f32 = {kDLFloat, 32, 1};
    KinoTensorBuilder *builder = NULL;
    if ((error = host->new_tensor_builder(call, f32, shape, 1, 1, &builder))) return error;
    return host->finish_tensor(builder, &outputs[0]);
  }
  if (is(mode, "secret")) return host->read_file(call, kino_str("../secret"), &outputs[0]);
  return host->new_text(mode, &outputs[0]);
}

static KinoError *save_node(KinoCall *call, KinoInstance *instance, KinoValue **state) {
  (void)call, (void)instance;
  *state = NULL;
  return NULL;
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

KINO_EXPORT const KinoPlugin *ENTRY(const KinoHost *table) {
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
  host->fail(NULL, kino_str("this machine has no flux capacitor"), kino_str("buy one"));
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
