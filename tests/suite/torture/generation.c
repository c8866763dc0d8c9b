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
  KinoValue *value = lent;
  DLTensor view;
  volatile float sum = 0;
  if (host->view_tensor(value, &view)) abort();
  while (atomic_load(&alive) && sum < 1e30f) {
    sum += ((float *)view.data)[0];
    usleep(20000);
  }
  host->release(value);
  return NULL;
}

struct KinoInstance {
  uint64_t runs;
};

static KinoError *open_node(KinoCall *call, KinoStr node, KinoStr saved, KinoInstance **instance) {
  (void)call, (void)node;
  *instance = calloc(1, sizeof **instance);
  if (saved.len == sizeof **instance) memcpy(*instance, saved.data, sizeof **instance);
  return NULL;
}

// in: a tensor, milliseconds. out: the generation, the runs of all generations, a tensor.
static KinoError *run_node(KinoCall *call, KinoInstance *instance, const KinoValue *const *inputs,
                           size_t input_count, KinoValue **outputs, size_t output_count) {
  (void)input_count, (void)output_count;
  uint64_t wait = 0;
  int64_t shape[1] = {1024};
  KinoTensorBuilder *builder = NULL;
  KinoError *error = NULL;
  DLTensor view;
  DLDataType f32 = {kDLFloat, 32, 1};
  pthread_t thread;
  if (!pthread_getspecific(key)) pthread_setspecific(key, calloc(1, sizeof(int)));
  *(int *)pthread_getspecific(key) = GENERATION;
  instance->runs += 1;
  TRY(host->get_u64(inputs[1], &wait));
  if (instance->runs % 5 == 0 &&
      pthread_create(&thread, NULL, haunt, host->retain(inputs[0])) == 0) {
    pthread_detach(thread);
  }
  usleep((useconds_t)wait * 1000);
  TRY(host->new_tensor_builder(call, f32, shape, 1, 0, &builder));
  TRY(host->builder_view(builder, &view));
  for (int i = 0; i < 1024; i++) ((float *)view.data)[i] = GENERATION;
  error = host->finish_tensor(builder, &outputs[2]);
  builder = NULL;
  if (error) goto end;
  TRY(host->new_u64(GENERATION, &outputs[0]));
  TRY(host->new_u64(instance->runs, &outputs[1]));
end:
  host->release_tensor_builder(builder);
  return error;
}

static KinoError *save_node(KinoCall *call, KinoInstance *instance, KinoValue **state) {
  KinoStr bytes = {(const char *)instance, sizeof *instance};
  (void)call;
  return host->new_bytes(bytes, state);
}

static void close_node(KinoInstance *instance) { free(instance); }

static void shut_down(void) {
  FILE *log = fopen(ENDS, "a");
  atomic_store(&alive, GENERATION % 2);
  if (!log || fprintf(log, "%d\n", GENERATION) < 0 || fclose(log) != 0) abort();
}

KINO_EXPORT const KinoPlugin *kino_plugin(const KinoHost *table) {
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
