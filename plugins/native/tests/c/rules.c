// Does what the contract rules on, and tells how it went; the input says what.

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define STATELESS
#include "test_plugin.h"

static KinoValue *held;

static KinoError *say(const char *text, KinoValue **to) {
  return host->new_text(kino_str(text), to);
}

static KinoError *begin(KinoCall *call, const int64_t *shape, size_t ndim,
                        KinoTensorBuilder **builder) {
  DLDataType f32 = {kDLFloat, 32, 1};
  return host->new_tensor_builder(call, f32, shape, ndim, 1, builder);
}

// Frames [frames, height, 2, 3], every number of which is the same.
static KinoValue *chunk(int64_t frames, int64_t height, float number) {
  int64_t shape[4] = {frames, height, 2, 3};
  KinoTensorBuilder *builder = NULL;
  KinoValue *made = NULL;
  DLTensor view;
  if (begin(NULL, shape, 4, &builder) || host->builder_view(builder, &view)) abort();
  for (int64_t i = 0; i < frames * height * 6; i++) ((float *)view.data)[i] = number;
  if (host->finish_tensor(builder, &made)) abort();
  return made;
}

// Frames of two chunks, 1 and 3, with 1 and 2 in them; made by a call, or a thread of its own.
static KinoError *frames(KinoCall *call, const KinoValue *more, KinoValue **to) {
  KinoValue *one = chunk(1, 4, 1), *three = chunk(3, 4, 2);
  KinoFramesBuilder *builder = NULL;
  KinoError *error = NULL;
  TRY(host->new_frames_builder(call, 8, &builder));
  TRY(host->push_frames(builder, one));
  TRY(host->push_frames(builder, three));
  if (more) TRY(host->push_frames(builder, more));
  error = host->finish_frames(builder, to);
  builder = NULL;
end:
  host->release(one), host->release(three);
  host->release_frames_builder(builder);
  return error;
}

static long number(const KinoValue *record, const char *name) {
  KinoValue *field = NULL;
  int64_t found = -1;
  if (host->field(record, kino_str(name), &field) || !field) return -1;
  if (host->get_i64(field, &found)) return -1;
  host->release(field);
  return (long)found;
}

static KinoError *read_back(KinoCall *call, KinoValue **to) {
  KinoValue *made = NULL, *chunks = NULL, *last = NULL;
  KinoError *error = NULL;
  DLTensor view;
  char told[80];
  TRY(frames(call, NULL, &made));
  TRY(host->field(made, kino_str("chunks"), &chunks));
  TRY(host->item(chunks, 1, NULL, &last));
  TRY(host->view_tensor(last, &view));
  snprintf(told, sizeof told, "%zu fields, %zu chunks, %ld of %ldx%ld, %g", host->len(made),
           host->len(chunks), number(made, "count"), number(made, "width"), number(made, "height"),
           ((float *)view.data)[0]);
  error = say(told, to);
end:
  host->release(made), host->release(chunks), host->release(last);
  return error;
}

// A whole number of 65 bits, through every getter.
static KinoError *numbers(KinoValue **to) {
  KinoValue *wide = NULL, *made = NULL;
  KinoError *error = NULL;
  uint64_t low = 0, large = 0;
  int64_t high = 0, small = 0;
  uint32_t truth = 0;
  char told[160];
  TRY(host->new_u64(UINT64_MAX, &made));
  TRY(host->get_u64(made, &large));
  TRY(host->new_wide(UINT64_MAX, -1, &wide));
  TRY(host->get_i64(wide, &small));
  TRY(host->get_wide(wide, &low, &high));
  if (large != UINT64_MAX || small != -1 || low != UINT64_MAX || high != -1) {
    error = fail("numbers change", "", "");
    goto end;
  }
  KinoError *expected[] = {host->get_i64(made, &small), host->get_u64(wide, &large),
                           host->get_bool(wide, &truth)};
  char *end = told;
  for (int i = 0; i < 3; i++) {
    KinoStr text = host->error_message(expected[i]);
    end += sprintf(end, "%s%.*s", i ? "; " : "", (int)text.len, text.data);
    host->release_error(expected[i]);
  }
  error = say(told, to);
end:
  host->release(wide), host->release(made);
  return error;
}

// The words of an error, which is given up.
static int words(KinoError *error, char *to) {
  KinoStr message = host->error_message(error), code = host->error_code(error);
  int length = sprintf(to, "%.*s (%.*s)", (int)message.len, message.data, (int)code.len, code.data);
  host->release_error(error);
  return length;
}

static int given_back;

static void give_back(DLManagedTensorVersioned *tensor) {
  given_back += 1;
  free(tensor);
}

// A tensor [2, 3] of the plugin's own, turned: what lies there is [3, 2].
static DLManagedTensorVersioned *turned(int32_t device) {
  static float elements[6] = {0, 1, 2, 3, 4, 5};
  static int64_t shape[2] = {2, 3}, strides[2] = {1, 2};
  DLManagedTensorVersioned *made = calloc(1, sizeof *made);
  made->version.major = 1;
  made->deleter = give_back;
  made->dl_tensor.data = elements;
  made->dl_tensor.device.device_type = (DLDeviceType)device;
  made->dl_tensor.ndim = 2;
  made->dl_tensor.dtype = (DLDataType){kDLFloat, 32, 1};
  made->dl_tensor.shape = shape;
  made->dl_tensor.strides = strides;
  return made;
}

// Memory of devices: that of the CPU works everywhere, others say that they are not here.
static KinoError *devices(KinoCall *call, KinoValue **to) {
  KinoValue *value = NULL;
  KinoTensorBuilder *builder = NULL;
  DLManagedTensorVersioned *view = NULL;
  KinoError *error = NULL;
  DLDevice cpu = {kDLCPU, 0}, cuda = {kDLCUDA, 0}, found = {kDLCUDA, 7};
  DLDataType f32 = {kDLFloat, 32, 1};
  int64_t shape[2] = {2, 3};
  DLTensor seen;
  char told[400], *end = told;
  given_back = 0;
  TRY(host->take_tensor(call, turned(kDLCPU), &value));
  TRY(host->device(value, &found));
  TRY(host->view_tensor(value, &seen));
  const float *elements = seen.data;
  end += sprintf(end, "%d: %g %g %g, strides %d %d, given back %d", (int)found.device_type,
                 elements[0], elements[1], elements[2], (int)seen.strides[0], (int)seen.strides[1],
                 given_back);
  TRY(host->view_tensor_on(call, value, NULL, &view));
  host->release(value);
  value = NULL;
  end += sprintf(end, ", then %g", ((const float *)view->dl_tensor.data)[3]);
  view->deleter(view);
  TRY(host->new_tensor_on(call, cpu, f32, shape, 2, &builder));
  TRY(host->builder_view(builder, &seen));
  for (int i = 0; i < 6; i++) ((float *)seen.data)[i] = (float)i;
  error = host->finish_tensor(builder, &value);
  builder = NULL;
  if (error) goto end;
  end += sprintf(end, "; ");
  end += words(host->new_tensor_on(call, cuda, f32, shape, 2, &builder), end);
  end += sprintf(end, "; ");
  KinoValue *none = NULL;
  end += words(host->take_tensor(call, turned(kDLCUDA), &none), end);
  sprintf(end, "; given back %d", given_back);
  error = say(told, to);
end:
  host->release(value);
  host->release_tensor_builder(builder);
  return error;
}

// What the host has, and a function that it has not.
static KinoError *has(KinoCall *call, const KinoValue *mode, KinoValue **to) {
  char told[200], *end = told;
  KinoValue *list = NULL;
  const char *names[] = {"op.matmul", "op.nothing", "type.Frames", "dtype.f32", "dtype.f8"};
  for (int i = 0; i < 5; i++) *end++ = (char)('0' + host->has(kino_str(names[i])));
  *end++ = ' ';
  words(host->call(call, kino_str("nothing"), &mode, 1, kino_str(""), &list), end);
  return say(told, to);
}

struct reading {
  KinoCall *call;
  char name;
  int wrong;
};

// Reads the file of one letter again and again; it holds that letter alone.
static void *read_files(void *given) {
  struct reading *reading = given;
  KinoStr path = {&reading->name, 1}, bytes = kino_str("");
  for (int i = 0; i < 50; i++) {
    KinoValue *file = NULL;
    if (host->read_file(reading->call, path, &file) || host->get_bytes(file, &bytes) ||
        bytes.len != 1 || bytes.data[0] != reading->name)
      reading->wrong += 1;
    host->release(file);
  }
  return NULL;
}

static KinoError *read_at_once(KinoCall *call, KinoValue **to) {
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
  if (frames(NULL, NULL, to)) abort();
  return NULL;
}

// Passes on what was held since the run before, and holds the new value.
static KinoError *hold(const KinoValue *value, KinoValue **to) {
  *to = held;
  held = value ? host->retain(value) : NULL;
  return NULL;
}

static KinoError *run_node(KinoCall *call, KinoInstance *instance, const KinoValue *const *inputs,
                           size_t input_count, KinoValue **outputs, size_t output_count) {
  (void)instance, (void)output_count;
  char mode[40] = "";
  KinoStr given = kino_str("");
  KinoError *error = NULL;
  KinoValue *made = NULL;
  KinoFramesBuilder *builder = NULL;
  TRY(host->get_bytes(inputs[0], &given));
  memcpy(mode, given.data, given.len < sizeof mode ? given.len : sizeof mode - 1);
  char *what = strchr(mode, ' ');
  if (what) *what++ = 0;
  else what = "";
  if (!strcmp(mode, "garbage")) {
    // The standard input of a process of its own is where it talks to the engine.
    if (write(0, "\xff\xff\xff\xff\xff", 5) < 0) error = fail("not written", "", "");
    for (;;) usleep(1000);
  } else if (!strcmp(mode, "deaf")) {
    // Its process reads nothing from soon after this run on.
    pthread_t thread;
    pthread_create(&thread, NULL, stop_soon, NULL);
    pthread_detach(thread);
  } else if (!strcmp(mode, "brief")) {
    usleep(10000);
  } else if (!strcmp(mode, "asked")) {
    error = say(host->cancelled(call) ? "cancelled" : "not cancelled", &outputs[0]);
  } else if (!strcmp(mode, "tensor")) {
    outputs[0] = chunk(1, 2, 0);
  } else if (!strcmp(mode, "read-back")) {
    error = read_back(call, &outputs[0]);
  } else if (!strcmp(mode, "numbers")) {
    error = numbers(&outputs[0]);
  } else if (!strcmp(mode, "devices")) {
    error = devices(call, &outputs[0]);
  } else if (!strcmp(mode, "has")) {
    error = has(call, inputs[0], &outputs[0]);
  } else if (!strcmp(mode, "with")) {
    // A latent keeps its space, and gets a field that nobody knows.
    const KinoValue *values[] = {inputs[1], inputs[0]};
    TRY(host->call(call, kino_str("with"), values, 2, kino_str("{\"fields\": [\"note\"]}"),
                   &made));
    error = host->item(made, 0, NULL, &outputs[0]);
  } else if (!strcmp(mode, "fit")) {
    TRY(host->call(call, kino_str("fit"), &inputs[1], 1, kino_str("{\"type\": \"Frames\"}"), &made));
    error = host->item(made, 0, NULL, &outputs[0]);
  } else if (!strcmp(mode, "fit-guider")) {
    TRY(host->call(call, kino_str("fit"), &inputs[1], 1, kino_str("{\"type\": \"Guider\"}"), &made));
    error = host->item(made, 0, NULL, &outputs[0]);
  } else if (!strcmp(mode, "no-value")) {
    const KinoValue *values[] = {NULL};
    error = host->op(call, kino_str("abs"), values, 1, kino_str(""), &outputs[0]);
  } else if (!strcmp(mode, "no-chunk")) {
    TRY(host->field(inputs[1], kino_str("chunks"), &made));
    error = host->item(made, 9, NULL, &outputs[0]);
  } else if (!strcmp(mode, "no-frames")) {
    TRY(host->new_frames_builder(call, 8, &builder));
    error = host->finish_frames(builder, &outputs[0]);
    builder = NULL;
  } else if (!strcmp(mode, "two-sizes")) {
    made = chunk(1, 6, 0);
    error = frames(call, made, &outputs[0]);
  } else if (!strcmp(mode, "rate")) {
    error = host->new_frames_builder(call, atof(what), &builder);
  } else if (!strcmp(mode, "nothing")) {
    error = host->push_frames(NULL, inputs[0]);
  } else if (!strcmp(mode, "kind")) {
    int64_t number = 0;
    error = host->get_i64(inputs[0], &number);
  } else if (!strcmp(mode, "secret")) {
    error = host->read_file(call, kino_str("../secret"), &outputs[0]);
  } else if (!strcmp(mode, "own")) {
    error = fail("the film is too dark", "turn a lamp on", "film.dark");
  } else if (!strcmp(mode, "own-code")) {
    error = fail("the film is too dark", "", "Film Dark");
  } else if (!strcmp(mode, "silent")) {
    error = fail("", "", "");
  } else if (!strcmp(mode, "files")) {
    error = read_at_once(call, &outputs[0]);
  } else if (!strcmp(mode, "thread")) {
    pthread_t thread;
    pthread_create(&thread, NULL, make_frames, &outputs[0]);
    pthread_join(thread, NULL);
  } else if (!strcmp(mode, "hold")) {
    error = hold(input_count > 1 ? inputs[1] : NULL, &outputs[0]);
  } else if (!strcmp(mode, "half")) {
    // A failure after an output was written: the host releases it.
    outputs[0] = chunk(1, 2, 0);
    error = fail("half of it", "", "");
  }
end:
  host->release(made);
  host->release_frames_builder(builder);
  return error;
}

// The table of a later version has more behind what this host knows.
static struct {
  KinoPlugin known;
  void (*unknown[4])(void);
} table;

KINO_EXPORT const KinoPlugin *kino_plugin(const KinoHost *given) {
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
