// What the plugins of the tests have in common: texts, the host's reasons, and their own table.

#include <stdlib.h>
#include <string.h>

#include "kino_plugin.h"

static const KinoHost *host;

static inline KinoStr str(const char *text) {
  KinoStr s = {(const uint8_t *)text, strlen(text)};
  return s;
}

// Passes a host function's reason on.
static inline KinoStatus because(KinoCall *call) {
  host->fail(call, host->error(), str(""));
  return KINO_FAILED;
}

static KinoStatus run_node(KinoCall *call, KinoInstance *instance, KinoValue *const *inputs,
                           size_t input_count, KinoValue **outputs, size_t output_count);

#ifdef STATELESS
static KinoStatus open_node(KinoCall *call, KinoStr node, KinoStr saved, KinoInstance **instance) {
  (void)call, (void)node, (void)saved;
  *instance = NULL;
  return KINO_OK;
}

static KinoStatus save_node(KinoCall *call, KinoInstance *instance, KinoValue **state) {
  (void)call, (void)instance;
  *state = NULL;
  return KINO_OK;
}

static void close_node(KinoInstance *instance) { (void)instance; }

static void shut_down(void) {}
#else
static KinoStatus open_node(KinoCall *call, KinoStr node, KinoStr saved, KinoInstance **instance);
static KinoStatus save_node(KinoCall *call, KinoInstance *instance, KinoValue **state);
static void close_node(KinoInstance *instance);
static void shut_down(void);
#endif

// Keeps the host's table, and fills the plugin's own.
static inline const KinoPlugin *fill_table(KinoPlugin *plugin, const KinoHost *table,
                                           const char *descriptor) {
  host = table;
  plugin->magic = KINO_MAGIC;
  plugin->major = KINO_MAJOR;
  plugin->minor = KINO_MINOR;
  plugin->size = sizeof *plugin;
  plugin->capabilities = str("");
  plugin->descriptor = str(descriptor);
  plugin->open = open_node;
  plugin->run = run_node;
  plugin->save = save_node;
  plugin->close = close_node;
  plugin->shutdown = shut_down;
  return plugin;
}
