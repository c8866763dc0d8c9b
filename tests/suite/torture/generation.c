// One generation of a plugin that makes reloading hard: every thread that runs it has thread-local
// data with a destructor in this library, and every fifth run leaves a detached thread behind that
// goes on reading a tensor which it was lent: of odd generations for as long as the process lives.
// With LOADS_FOR it takes so many milliseconds to load.

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "test_plugin.h"

static pthread_key_t key;
static atomic_int alive = 1;

// Runs when a thread ends, long after the generation is over.
static void forget(void *data) {
  *(volatile int *)data = -GENERATION;
  free(data);
}

static void *haunt(void *lent) {
  DLManagedTensorVersioned *view = NULL;
  KinoValue *value = lent;
  volatile float sum = 0;
  if (host->view_tensor(value, &view) != KINO_OK) abort();
  while (atomic_load(&alive) && sum < 1e30f) {
    sum += ((float *)view->dl_tensor.data)[0];
    usleep(20000);
  }
  view->deleter(view);
  host->release(value);
  return NULL;
}

static KinoStatus open_node(KinoCall *call, KinoStr node, KinoStr saved, KinoInstance **instance) {
  (void)call, (void)node;
  uint64_t *runs = calloc(1, sizeof *runs);
  if (saved.len == sizeof *runs) memcpy(runs, saved.data, sizeof *runs);
  *instance = runs;
  return KINO_OK;
}

// in: a tensor, milliseconds. out: the generation, the runs of all generations, a tensor.
static KinoStatus run_node(KinoCall *call, KinoInstance *instance, KinoValue *const *inputs,
                           size_t input_count, KinoValue **outputs, size_t output_count) {
  (void)input_count, (void)output_count;
  uint64_t *runs = instance, wait = 0;
  int64_t high, shape[1] = {1024};
  DLManagedTensorVersioned *view = NULL;
  DLDataType f32 = {DL_FLOAT, 32, 1};
  pthread_t thread;
  if (!pthread_getspecific(key)) pthread_setspecific(key, calloc(1, sizeof(int)));
  *(int *)pthread_getspecific(key) = GENERATION;
  *runs += 1;
  if (host->get_int(inputs[1], &wait, &high) != KINO_OK) goto fail;
  if (*runs % 5 == 0 && pthread_create(&thread, NULL, haunt, host->retain(inputs[0])) == 0) {
    pthread_detach(thread);
  }
  usleep((useconds_t)wait * 1000);
  if (host->new_tensor(f32, shape, 1, &outputs[2]) != KINO_OK ||
      host->write_tensor(outputs[2], &view) != KINO_OK) {
    goto fail;
  }
  for (int i = 0; i < 1024; i++) ((float *)view->dl_tensor.data)[i] = GENERATION;
  view->deleter(view);
  if (host->new_int(GENERATION, 0, &outputs[0]) != KINO_OK ||
      host->new_int(*runs, 0, &outputs[1]) != KINO_OK) {
    goto fail;
  }
  return KINO_OK;
fail:
  return because(call);
}

static KinoStatus save_node(KinoCall *call, KinoInstance *instance, KinoValue **state) {
  KinoStr bytes = {instance, sizeof(uint64_t)};
  (void)call;
  return host->new_bytes(bytes, state);
}

static void close_node(KinoInstance *instance) { free(instance); }

static void shut_down(void) {
  FILE *log = fopen(ENDS, "a");
  atomic_store(&alive, GENERATION % 2);
  if (!log || fprintf(log, "%d\n", GENERATION) < 0 || fclose(log) != 0) abort();
}

const KinoPlugin *kino_plugin(const KinoHost *table) {
  static KinoPlugin plugin;
  const char *descriptor =
      "{\"nodes\": [{\"id\": \"torture.step\", \"version\": \"1\", \"state\": true, \"inputs\": ["
      "{\"name\": \"tensor\", \"type\": \"Tensor\"}, {\"name\": \"wait\", \"type\": \"Int\"}],"
      " \"outputs\": [{\"name\": \"generation\", \"type\": \"Int\"}, {\"name\": \"runs\","
      " \"type\": \"Int\"}, {\"name\": \"tensor\", \"type\": \"Tensor\"}]}]}";
#ifdef LOADS_FOR
  usleep((useconds_t)LOADS_FOR * 1000);
#endif
  if (pthread_key_create(&key, forget) != 0) return NULL;
  return fill_table(&plugin, table, descriptor);
}
