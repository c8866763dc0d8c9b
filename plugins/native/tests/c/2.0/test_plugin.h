// What the plugins of the tests have in common: errors and their own table.

#include <stdlib.h>
#include <string.h>

#include "kino_plugin.h"

static const KinoHost *host;

// Goes to the end of a function with the error of a host function, if it is one.
#define TRY(does)             \
  do {                        \
    if ((error = (does))) {   \
      goto end;               \
    }                         \
  } while (0)

static inline KinoError *fail(const char *message, const char *hint, const char *code) {
  return host->new_error(kino_str(message), kino_str(hint), kino_str(code));
}

static inline KinoError *cancelled(void) { return fail("cancelled", "", "cancelled"); }

static KinoError *run_node(KinoCall *call, KinoInstance *instance, const KinoValue *const *inputs,
                           size_t input_count, KinoValue **outputs, size_t output_count);

#ifdef STATELESS
static KinoError *open_node(KinoCall *call, KinoStr node, KinoStr saved, KinoInstance **instance) {
  (void)call, (void)node, (void)saved;
  *instance = NULL;
  return NULL;
}

static KinoError *save_node(KinoCall *call, KinoInstance *instance, KinoValue **state) {
  (void)call, (void)instance;
  *state = NULL;
  return NULL;
}

static void close_node(KinoInstance *instance) { (void)instance; }

static void shut_down(void) {}
#else
static KinoError *open_node(KinoCall *call, KinoStr node, KinoStr saved, KinoInstance **instance);
static KinoError *save_node(KinoCall *call, KinoInstance *instance, KinoValue **state);
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
  plugin->capabilities = kino_str("");
  plugin->descriptor = kino_str(descriptor);
  plugin->open = open_node;
  plugin->run = run_node;
  plugin->save = save_node;
  plugin->close = close_node;
  plugin->shutdown = shut_down;
  return plugin;
}
