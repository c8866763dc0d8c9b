// Does what the contract rules on, and tells how it went; the input says what.

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define STATELESS
#include "test_plugin.h"

static KinoValue *held;

static KinoStatus say(const char *text, KinoValue **to) { return host->new_text(str(text), to); }

static KinoValue *zeros(const int64_t *shape, size_t ndim) {
  DLDataType f32 = {DL_FLOAT, 32, 1};
  KinoValue *made = NULL;
  host->new_tensor(f32, shape, ndim, &made);
  return made;
}

static KinoValue *chunk(int64_t frames, int64_t height) {
  int64_t shape[4] = {frames, height, 2, 3};
  return zeros(shape, 4);
}

static DLManagedTensorVersioned *writer(KinoValue *tensor) {
  DLManagedTensorVersioned *view = NULL;
  return host->write_tensor(tensor, &view) == KINO_OK ? view : NULL;
}

static void fill(KinoValue *tensor, float number) {
  DLManagedTensorVersioned *view = writer(tensor);
  int64_t count = 1;
  for (int i = 0; i < view->dl_tensor.ndim; i++) count *= view->dl_tensor.shape[i];
  for (int64_t i = 0; i < count; i++) ((float *)view->dl_tensor.data)[i] = number;
  view->deleter(view);
}

// Takes a tensor up in some way.
static KinoStatus take_up(const char *how, KinoValue *tensor) {
  KinoStatus status = KINO_FAILED;
  KinoValue *made = NULL;
  if (!strcmp(how, "view")) {
    DLManagedTensorVersioned *view = NULL;
    status = host->view_tensor(tensor, &view);
    if (status == KINO_OK) view->deleter(view);
  } else if (!strcmp(how, "record")) {
    KinoField field = {str("tensor"), tensor};
    status = host->new_record(str("Latent"), &field, 1, &made);
  } else if (!strcmp(how, "own")) {
    KinoField field = {str("depth"), tensor};
    status = host->new_record(str("example.depth"), &field, 1, &made);
  } else if (!strcmp(how, "op")) {
    status = host->op(str("abs"), &tensor, 1, str(""), &made);
  } else if (!strcmp(how, "push")) {
    status = host->new_frames(8, &made);
    if (status == KINO_OK) status = host->push_frames(made, tensor);
  } else if (!strcmp(how, "write")) {
    status = writer(tensor) ? KINO_OK : KINO_FAILED;
  }
  host->release(made);
  return status;
}

// Frames of two chunks, 1 and 3, with 1 and 2 in them.
static KinoValue *frames(void) {
  KinoValue *made = NULL, *one = chunk(1, 4), *three = chunk(3, 4);
  fill(one, 1), fill(three, 2);
  if (host->new_frames(8, &made) == KINO_OK) {
    host->push_frames(made, one);
    host->push_frames(made, three);
  }
  host->release(one), host->release(three);
  return made;
}

static long number(KinoValue *record, const char *name) {
  KinoValue *field = NULL;
  uint64_t low = 0;
  int64_t high = 0;
  if (host->field(record, str(name), &field) != KINO_OK || !field) return -1;
  host->get_int(field, &low, &high);
  host->release(field);
  return (long)low;
}

static KinoStatus read_back(KinoCall *call, const char *then, KinoValue **to) {
  KinoValue *made = frames(), *chunks = NULL, *last = NULL;
  KinoStr name = str("");
  DLManagedTensorVersioned *view = NULL;
  char told[80];
  KinoStatus status = KINO_FAILED;
  if (host->field(made, str("chunks"), &chunks) == KINO_OK && chunks &&
      host->item(chunks, 1, &name, &last) == KINO_OK && host->view_tensor(last, &view) == KINO_OK) {
    snprintf(told, sizeof told, "%zu fields, %zu chunks, %ld of %ldx%ld, %g", host->len(made),
             host->len(chunks), number(made, "count"), number(made, "width"),
             number(made, "height"), ((float *)view->dl_tensor.data)[0]);
    view->deleter(view);
    status = say(told, to);
  }
  if (!strcmp(then, "push")) status = host->push_frames(made, last);
  host->release(made), host->release(chunks), host->release(last);
  return status == KINO_OK ? status : because(call);
}

struct reading {
  KinoCall *call;
  char name;
  int wrong;
};

// Reads the file of one letter again and again; it holds that letter alone.
static void *read_files(void *given) {
  struct reading *reading = given;
  KinoStr path = {(const uint8_t *)&reading->name, 1}, bytes = str("");
  for (int i = 0; i < 50; i++) {
    KinoValue *file = NULL;
    if (host->read_file(reading->call, path, &file) != KINO_OK ||
        host->get_bytes(file, &bytes) != KINO_OK || bytes.len != 1 ||
        bytes.data[0] != (uint8_t)reading->name)
      reading->wrong += 1;
    host->release(file);
  }
  return NULL;
}

static KinoStatus read_at_once(KinoCall *call, KinoValue **to) {
  pthread_t threads[4];
  struct reading readings[4];
  char told[40];
  int wrong = 0;
  for (int i = 0; i < 4; i++) {
    readings[i] = (struct reading){call, (char)('a' + i), 0};
    pthread_create(&threads[i], NULL, read_files, &readings[i]);
  }
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL), wrong += readings[i].wrong;
  snprintf(told, sizeof told, "%d wrong", wrong);
  return say(told, to);
}

static void *stop_soon(void *unused) {
  (void)unused;
  usleep(100000);
  kill(getpid(), SIGSTOP);
  return NULL;
}

static void *make_frames(void *to) {
  *(KinoValue **)to = frames();
  return NULL;
}

// Passes on what was held since the run before, and holds the new value.
static KinoStatus hold(KinoValue *value, KinoValue **to) {
  *to = held;
  held = value ? host->retain(value) : NULL;
  return KINO_OK;
}

static KinoStatus run_node(KinoCall *call, KinoInstance *instance, KinoValue *const *inputs,
                           size_t input_count, KinoValue **outputs, size_t output_count) {
  (void)instance, (void)output_count;
  char mode[40] = "";
  KinoStr given = str("");
  KinoStatus status = KINO_OK;
  KinoValue *made = NULL;
  if (host->get_bytes(inputs[0], &given) != KINO_OK) return because(call);
  memcpy(mode, given.data, given.len < sizeof mode ? given.len : sizeof mode - 1);
  char *what = strchr(mode, ' ');
  if (what) *what++ = 0;
  else what = "";
  if (!strcmp(mode, "write-after")) {
    made = chunk(1, 2);
    if (take_up(what, made) != KINO_OK || !writer(made)) status = because(call);
  } else if (!strcmp(mode, "while-writing")) {
    made = chunk(1, 2);
    if (!writer(made) || take_up(what, made) != KINO_OK) status = because(call);
  } else if (!strcmp(mode, "give-while-writing")) {
    outputs[0] = chunk(1, 2);
    writer(outputs[0]);
  } else if (!strcmp(mode, "garbage")) {
    // The standard input of a process of its own is where it talks to the engine.
    if (write(0, "\xff\xff\xff\xff\xff", 5) < 0) status = KINO_FAILED;
    for (;;) usleep(1000);
  } else if (!strcmp(mode, "deaf")) {
    // Its process reads nothing from soon after this run on.
    pthread_t thread;
    pthread_create(&thread, NULL, stop_soon, NULL);
    pthread_detach(thread);
  } else if (!strcmp(mode, "brief")) {
    usleep(10000);
  } else if (!strcmp(mode, "asked")) {
    status = say(host->cancelled(call) ? "cancelled" : "not cancelled", &outputs[0]);
  } else if (!strcmp(mode, "tensor")) {
    outputs[0] = chunk(1, 2);
  } else if (!strcmp(mode, "read-back")) {
    status = read_back(call, what, &outputs[0]);
  } else if (!strcmp(mode, "no-frames")) {
    status = host->new_frames(8, &outputs[0]);
  } else if (!strcmp(mode, "two-sizes")) {
    KinoValue *other = chunk(1, 6);
    made = frames();
    if (host->push_frames(made, other) != KINO_OK) status = because(call);
    host->release(other);
  } else if (!strcmp(mode, "rate")) {
    if (host->new_frames(atof(what), &outputs[0]) != KINO_OK) status = because(call);
  } else if (!strcmp(mode, "secret")) {
    if (host->read_file(call, str("../secret"), &outputs[0]) != KINO_OK) status = because(call);
  } else if (!strcmp(mode, "silent")) {
    status = KINO_FAILED;
  } else if (!strcmp(mode, "files")) {
    status = read_at_once(call, &outputs[0]);
  } else if (!strcmp(mode, "thread")) {
    pthread_t thread;
    pthread_create(&thread, NULL, make_frames, &outputs[0]);
    pthread_join(thread, NULL);
  } else if (!strcmp(mode, "hold")) {
    status = hold(input_count > 1 ? inputs[1] : NULL, &outputs[0]);
  } else if (!strcmp(mode, "half")) {
    // A list whose first item can be given, and whose second cannot.
    KinoValue *open = chunk(1, 2), *done = chunk(1, 2);
    KinoField items[2] = {{str(""), done}, {str(""), open}};
    writer(open);
    status = host->new_list(items, 2, &outputs[0]);
    host->release(open), host->release(done);
  }
  host->release(made);
  return status;
}

// The table of a later version has more behind what this host knows.
static struct {
  KinoPlugin known;
  void (*unknown[4])(void);
} table;

const KinoPlugin *kino_plugin(const KinoHost *given) {
  const char *descriptor =
      "{\"nodes\": [{\"id\": \"rules.node\", \"version\": \"1\", \"inputs\":"
      " [{\"name\": \"mode\", \"type\": \"Text\"},"
      " {\"name\": \"value\", \"type\": \"Text\", \"optional\": true}],"
      " \"outputs\": [{\"name\": \"text\", \"type\": \"Text\"}]}]}";
  fill_table(&table.known, given, descriptor);
  table.known.minor += 1;
  table.known.size = sizeof table;
  return &table.known;
}
