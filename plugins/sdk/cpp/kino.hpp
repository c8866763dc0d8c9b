// Nodes for Kinograph in C++17: functions, and classes with `run`.
//
// A thin layer over kino_plugin.h. Handles are released by destructors, errors of the host are thrown as
// `kino::Error`, and whatever is thrown ends the node with its text: nothing leaves a function of the
// contract. `value.get()` is the handle that the functions of `kino::host` take.

#ifndef KINO_HPP
#define KINO_HPP

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "kino_plugin.h"

namespace kino {

/// The functions of the host; there from the moment the plugin is loaded.
inline const KinoHost *host = nullptr;

inline KinoStr str(std::string_view text) { return {text.data(), text.size()}; }
inline std::string_view view(KinoStr text) { return {text.data ? text.data : "", text.len}; }

/// An error for the user: what is wrong, what can be done about it, a name for programs.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string &message, std::string hint = "", std::string code = "")
      : std::runtime_error(message), hint(std::move(hint)), code(std::move(code)) {}

  std::string hint, code;
};

/// Throws an error of the host; null is none.
inline void check(KinoError *error) {
  if (!error) return;
  Error thrown(std::string(view(host->error_message(error))), std::string(view(host->error_hint(error))),
               std::string(view(host->error_code(error))));
  host->release_error(error);
  throw thrown;
}

/// A value of the host: immutable, counted, perhaps none.
class Value {
 public:
  Value() = default;
  Value(const Value &other) : value_(host->retain(other.value_)) {}
  Value(Value &&other) noexcept : value_(std::exchange(other.value_, nullptr)) {}
  Value &operator=(Value other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~Value() {
    if (value_) host->release(value_);
  }

  /// A value that belongs to the caller.
  static Value owned(KinoValue *value) {
    Value made;
    made.value_ = value;
    return made;
  }
  /// A value that is lent.
  static Value lent(const KinoValue *value) { return owned(host->retain(value)); }

  static Value of(std::string_view text) { return made(host->new_text, str(text)); }
  static Value of(const char *text) { return of(std::string_view(text)); }
  static Value of(double number) { return made(host->new_f64, number); }
  static Value of(std::int64_t number) { return made(host->new_i64, number); }
  static Value of(std::uint64_t number) { return made(host->new_u64, number); }
  static Value of(bool truth) { return made(host->new_bool, std::uint32_t{truth}); }
  static Value bytes(std::string_view bytes) { return made(host->new_bytes, str(bytes)); }
  static Value list(const std::vector<Value> &items) {
    std::vector<KinoField> fields;
    for (const Value &item : items) fields.push_back({str(""), item.value_});
    return made(host->new_list, fields.data(), fields.size());
  }
  /// A record of a standard type (DESCRIPTOR.md), or of the plugin's own.
  static Value record(std::string_view type, const std::vector<std::pair<std::string, Value>> &fields) {
    std::vector<KinoField> lent;
    for (const auto &[name, value] : fields) lent.push_back({str(name), value.value_});
    return made(host->new_record, str(type), lent.data(), lent.size());
  }

  explicit operator bool() const { return value_ != nullptr; }
  const KinoValue *get() const { return value_; }
  /// The handle, which the caller releases or returns.
  KinoValue *release() { return std::exchange(value_, nullptr); }

  KinoKind kind() const { return host->kind(value_); }
  std::string_view type_name() const { return view(host->type_name(value_)); }
  std::string_view bytes() const { return view(read<KinoStr>(host->get_bytes)); }
  std::string text() const { return std::string(bytes()); }
  double real() const { return read<double>(host->get_f64); }
  std::int64_t i64() const { return read<std::int64_t>(host->get_i64); }
  std::uint64_t u64() const { return read<std::uint64_t>(host->get_u64); }
  bool truth() const { return read<std::uint32_t>(host->get_bool) != 0; }
  /// The number of items of a list, or of fields of a record.
  std::size_t len() const { return host->len(value_); }
  Value at(std::size_t index) const {
    KinoValue *item = nullptr;
    check(host->item(value_, index, nullptr, &item));
    return owned(item);
  }
  /// A field of a record; none where it has none.
  Value field(std::string_view name) const {
    KinoValue *field = nullptr;
    check(host->field(value_, str(name), &field));
    return owned(field);
  }

  /// What a function of the host makes; its last argument is where it puts it.
  template <class Make, class... Arguments>
  static Value made(Make make, Arguments... arguments) {
    KinoValue *value = nullptr;
    check(make(arguments..., &value));
    return owned(value);
  }

 private:
  template <class T, class Get>
  T read(Get get) const {
    T read{};
    check(get(value_, &read));
    return read;
  }

  KinoValue *value_ = nullptr;
};

/// The call of a node.
class Cx {
 public:
  explicit Cx(KinoCall *call) : call(call) {}

  bool cancelled() const { return host->cancelled(call) != 0; }
  /// Ends the node if the run was cancelled; to be called some times a second.
  void check_cancel() const {
    if (cancelled()) throw Error("cancelled", "", "cancelled");
  }
  /// Reports that `step` of `of` pieces of work are done.
  void progress(std::size_t step, std::size_t of) const { host->progress(call, step, of); }
  /// Whether anybody reads an output.
  bool wants(std::size_t output) const { return host->wants(call, output) != 0; }
  /// A file that the user granted; its path is relative to the graph.
  Value read_file(std::string_view path) const { return Value::made(host->read_file, call, str(path)); }
  /// Levels: 1 error, 2 warning, 3 information, 4 debugging, 5 tracing.
  void log(std::uint32_t level, std::string_view message) const {
    host->log(call, level, str("plugin"), str(message));
  }

  KinoCall *const call;
};

/// The DLPack type of elements.
template <class T>
constexpr DLDataType dtype_of() {
  static_assert(std::is_arithmetic_v<T>, "tensors hold numbers");
  constexpr auto code = std::is_floating_point_v<T> ? kDLFloat : std::is_signed_v<T> ? kDLInt : kDLUInt;
  return {static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(8 * sizeof(T)), 1};
}

/// A tensor, or a record with a field `tensor`.
class Tensor : public Value {
 public:
  Tensor() = default;
  Tensor(Value value) : Value(std::move(value)) {}

  /// Where it lies and how; good as long as it.
  DLTensor view() const {
    DLTensor view{};
    check(host->view_tensor(get(), &view));
    return view;
  }
  std::vector<std::int64_t> shape() const {
    const DLTensor seen = view();
    return std::vector<std::int64_t>(seen.shape, seen.shape + seen.ndim);
  }
  /// The number of elements.
  std::size_t count() const {
    std::size_t count = 1;
    for (std::int64_t size : shape()) count *= static_cast<std::size_t>(size);
    return count;
  }
  /// One operation (OPERATIONS.md) on this tensor and others, with attributes as JSON.
  Tensor op(const Cx &cx, std::string_view name, const std::vector<Tensor> &others = {},
            std::string_view attributes = "") const {
    std::vector<const KinoValue *> tensors{get()};
    for (const Tensor &other : others) tensors.push_back(other.get());
    return Value::made(host->op, cx.call, str(name), tensors.data(), tensors.size(), str(attributes));
  }
  /// Its elements in main memory, row-major; good as long as it.
  template <class T>
  const T *data() const {
    DLTensor seen = view();
    const DLDataType expected = dtype_of<T>();
    if (seen.dtype.code != expected.code || seen.dtype.bits != expected.bits) {
      throw Error("a tensor has elements of another type than the node reads",
                  "a `cast` operation converts it");
    }
    if (!seen.data || !is_plain(seen)) {
      const Cx none(nullptr);
      plain_ = std::make_shared<Tensor>(op(none, "to_host").op(none, "contiguous"));
      seen = plain_->view();
    }
    return reinterpret_cast<const T *>(static_cast<const char *>(seen.data) + seen.byte_offset);
  }

 private:
  static bool is_plain(const DLTensor &seen) {
    std::int64_t step = 1;
    for (int at = seen.ndim - 1; at >= 0; at--) {
      if (seen.shape[at] > 1 && seen.strides[at] != step) return false;
      step *= seen.shape[at];
    }
    return true;
  }

  mutable std::shared_ptr<Tensor> plain_;
};

/// A tensor that is being written, in main memory.
template <class T>
class TensorBuilder {
 public:
  /// `zeroed` may be false where every element is written.
  TensorBuilder(const Cx &cx, const std::vector<std::int64_t> &shape, bool zeroed = true) {
    check(host->new_tensor_builder(cx.call, dtype_of<T>(), shape.data(), shape.size(), zeroed, &builder_));
  }
  TensorBuilder(const TensorBuilder &) = delete;
  TensorBuilder &operator=(const TensorBuilder &) = delete;
  ~TensorBuilder() { host->release_tensor_builder(builder_); }

  T *data() {
    DLTensor seen{};
    check(host->builder_view(builder_, &seen));
    return reinterpret_cast<T *>(static_cast<char *>(seen.data) + seen.byte_offset);
  }
  Tensor finish() { return Value::made(host->finish_tensor, std::exchange(builder_, nullptr)); }

 private:
  KinoTensorBuilder *builder_ = nullptr;
};

/// Frames of a video, `[n, height, width, 3]` of f32 in 0…1, in chunks.
class Frames : public Value {
 public:
  Frames() = default;
  Frames(Value value) : Value(std::move(value)) {}

  /// Frames a second; none where that is not known.
  std::optional<double> fps() const {
    const Value rate = field("fps");
    return rate ? std::optional(rate.real()) : std::nullopt;
  }
  /// A list of tensors.
  Value chunks() const { return field("chunks"); }

  /// Frames of what a function makes of each chunk; reports progress, ends when cancelled.
  template <class Change>
  Frames map(const Cx &cx, Change change) const {
    KinoFramesBuilder *begun = nullptr;
    check(host->new_frames_builder(cx.call, fps().value_or(std::numeric_limits<double>::quiet_NaN()), &begun));
    std::unique_ptr<KinoFramesBuilder, void (*)(KinoFramesBuilder *)> builder(begun, host->release_frames_builder);
    const Value all = chunks();
    const std::size_t count = all.len();
    for (std::size_t at = 0; at < count; at++) {
      cx.check_cancel();
      const Tensor changed = change(Tensor(all.at(at)));
      check(host->push_frames(builder.get(), changed.get()));
      cx.progress(at + 1, count);
    }
    return Value::made(host->finish_frames, builder.release());
  }

  /// Frames of what a function makes of each sample, a float.
  template <class Change>
  Frames map_each(const Cx &cx, Change change) const {
    return map(cx, [&](const Tensor &chunk) {
      TensorBuilder<float> made(cx, chunk.shape(), false);
      const float *from = chunk.data<float>();
      std::transform(from, from + chunk.count(), made.data(), change);
      return made.finish();
    });
  }
};

/// A step of a sampling run: `index` of `count`, and its noise level. The first argument of a guider.
struct Step {
  std::int64_t index, count;
  double sigma;
};

// How types of C++ are ports: the name in the descriptor, and how a value is read and made.

template <class T, class = void>
struct Port;

template <>
struct Port<double> {
  static constexpr const char *type = "Real";
  static double read(const Value &value) { return value.real(); }
  static Value make(double number) { return Value::of(number); }
};
template <>
struct Port<std::int64_t> {
  static constexpr const char *type = "Int";
  static std::int64_t read(const Value &value) { return value.i64(); }
  static Value make(std::int64_t number) { return Value::of(number); }
};
template <>
struct Port<std::uint64_t> {
  static constexpr const char *type = "Int";
  static std::uint64_t read(const Value &value) { return value.u64(); }
  static Value make(std::uint64_t number) { return Value::of(number); }
};
template <>
struct Port<bool> {
  static constexpr const char *type = "Bool";
  static bool read(const Value &value) { return value.truth(); }
  static Value make(bool truth) { return Value::of(truth); }
};
template <>
struct Port<std::string> {
  static constexpr const char *type = "Text";
  static std::string read(const Value &value) { return value.text(); }
  static Value make(const std::string &text) { return Value::of(std::string_view(text)); }
};
template <class T>
struct Port<T, std::enable_if_t<std::is_base_of_v<Value, T>>> {
  static constexpr const char *type = std::is_same_v<T, Frames>   ? "Frames"
                                      : std::is_same_v<T, Tensor> ? "Tensor"
                                                                  : "Any";
  static T read(const Value &value) { return T(value); }
  static Value make(const Value &value) { return value; }
};
template <class T>
struct Port<std::optional<T>> {
  static constexpr const char *type = Port<T>::type;
  static Value make(const std::optional<T> &value) { return value ? Port<T>::make(*value) : Value(); }
};
template <class T>
struct Port<std::vector<T>> {
  static constexpr const char *type = Port<T>::type;
  static Value make(const std::vector<T> &all) {
    std::vector<Value> items;
    for (const T &item : all) items.push_back(Port<T>::make(item));
    return Value::list(items);
  }
};

/// A type as an argument.
template <class T>
struct Tag {};

/// The inputs of a run, read one after another.
struct Inputs {
  const KinoValue *const *values;
  std::size_t at = 0;

  template <class T>
  T next(Tag<T>) {
    return Port<T>::read(Value::lent(values[at++]));
  }
  template <class T>
  std::optional<T> next(Tag<std::optional<T>>) {
    const KinoValue *value = values[at++];
    return value ? std::optional<T>(Port<T>::read(Value::lent(value))) : std::nullopt;
  }
  template <class T>
  std::vector<T> next(Tag<std::vector<T>>) {
    const Value list = Value::lent(values[at++]);
    std::vector<T> all;
    for (std::size_t index = 0; list && index < list.len(); index++) all.push_back(Port<T>::read(list.at(index)));
    return all;
  }
  Step next(Tag<Step>) {
    // Braces fix the order of evaluation.
    return Step{next(Tag<std::int64_t>{}), next(Tag<std::int64_t>{}), next(Tag<double>{})};
  }
};

/// A text as JSON.
inline std::string quoted(std::string_view text) {
  std::string json = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') json += '\\';
    json += c == '\n' ? ' ' : c;
  }
  return json + '"';
}

/// A node: what the descriptor says of it, and how it runs.
class Node {
 public:
  using Make = std::function<std::shared_ptr<void>(std::optional<std::string_view>)>;
  using Run = std::function<std::vector<Value>(const Cx &, void *, Inputs &)>;
  using Save = std::function<Value(void *)>;

  Node(std::string_view id, std::string_view version, std::string_view about) : id(id) {
    head_ = "{\"id\": " + quoted(id) + ", \"version\": " + quoted(version) + ", \"about\": " + quoted(about);
  }

  /// The next input: its name, and more keys of DESCRIPTOR.md as JSON, such as `"default": 1.5`.
  Node &&input(std::string_view name, std::string_view keys = "") && {
    if (names_ >= types_in.size()) throw Error(id + ": more inputs are named than the function takes");
    inputs_ += (inputs_.empty() ? "" : ", ") + port(name, types_in[names_++], keys);
    return std::move(*this);
  }
  /// The next output, the same way.
  Node &&output(std::string_view name, std::string_view keys = "") && {
    const std::size_t at = named_outputs_++;
    if (at >= types_out.size()) throw Error(id + ": more outputs are named than the function gives");
    outputs_ += (outputs_.empty() ? "" : ", ") + port(name, types_out[at], keys);
    return std::move(*this);
  }
  /// More keys of the node as JSON, such as `"expensive": true`.
  Node &&keys(std::string_view json) && {
    head_ += ", " + std::string(json);
    return std::move(*this);
  }

  std::string descriptor() const {
    if (names_ != types_in.size() || named_outputs_ != types_out.size()) {
      throw Error(id + ": every input and output of the function needs a name: .input(\"…\"), .output(\"…\")");
    }
    return head_ + ", \"inputs\": [" + inputs_ + "], \"outputs\": [" + outputs_ + "]}";
  }

  std::string id;
  Make make = [](std::optional<std::string_view>) { return std::shared_ptr<void>(); };
  Run run;
  Save save = [](void *) { return Value(); };
  /// How a port is described: its type, and its arity as JSON.
  struct Type {
    std::string name, more;
  };
  std::vector<Type> types_in, types_out;

 private:
  /// Keys may name another type than the function's, such as `"type": "Mask"` of a kino::Tensor.
  static std::string port(std::string_view name, const Type &type, std::string_view keys) {
    const bool named = keys.find("\"type\"") != keys.npos;
    return "{\"name\": " + quoted(name) + (named ? "" : ", \"type\": " + quoted(type.name)) + type.more +
           (keys.empty() ? "" : ", ") + std::string(keys) + "}";
  }

  std::string head_, inputs_, outputs_;
  std::size_t names_ = 0, named_outputs_ = 0;
};

namespace detail {

template <class T>
struct Is {
  static constexpr bool optional = false, list = false;
};
template <class T>
struct Is<std::optional<T>> {
  static constexpr bool optional = true, list = false;
};
template <class T>
struct Is<std::vector<T>> {
  static constexpr bool optional = false, list = true;
};

constexpr const char *OPTIONAL = ", \"arity\": \"optional\"";

template <class T>
Node::Type input_type() {
  return {Port<T>::type, Is<T>::optional ? OPTIONAL : Is<T>::list ? ", \"arity\": \"list\"" : ""};
}

/// A vector that is given is a value of a list type.
template <class T>
Node::Type output_type() {
  const std::string type = Port<T>::type;
  return {Is<T>::list ? "List(" + type + ")" : type, Is<T>::optional ? OPTIONAL : ""};
}

template <class... Given>
std::vector<Value> outputs(const std::tuple<Given...> &given) {
  return std::apply([](const auto &...one) { return std::vector<Value>{Port<std::decay_t<decltype(one)>>::make(one)...}; },
                    given);
}
template <class Given>
std::vector<Value> outputs(const Given &given) {
  return {Port<Given>::make(given)};
}

template <class... Given>
std::vector<Node::Type> output_types(Tag<std::tuple<Given...>>) {
  return {output_type<Given>()...};
}
template <class Given>
std::vector<Node::Type> output_types(Tag<Given>) {
  return {output_type<Given>()};
}

template <class Given, class... Taken, class Call>
void set_run(Node &made, Call call) {
  made.run = [call](const Cx &cx, void *state, Inputs &inputs) {
    std::tuple<std::decay_t<Taken>...> taken{inputs.next(Tag<std::decay_t<Taken>>{})...};
    return outputs(std::apply([&](auto &...one) { return call(cx, state, one...); }, taken));
  };
}

template <class Given, class... Taken, class Call>
Node node(Node made, Call call) {
  made.types_in = {input_type<std::decay_t<Taken>>()...};
  made.types_out = output_types(Tag<Given>{});
  set_run<Given, Taken...>(made, call);
  return made;
}

template <class... Taken, class Call>
Node guider(Node made, Call call) {
  Node begun = std::move(made).keys("\"guider\": true");
  begun.types_in = {input_type<std::decay_t<Taken>>()...};
  begun.types_out = {{"Guider", ""}};
  set_run<Tensor, Step, Tensor, Tensor, Taken...>(begun, call);
  return begun;
}

template <class State>
void with_state(Node &made) {
  made.make = [](std::optional<std::string_view> saved) -> std::shared_ptr<void> {
    if constexpr (std::is_constructible_v<State, std::string_view>) {
      if (saved) return std::make_shared<State>(*saved);
    }
    return std::make_shared<State>();
  };
}

template <class State, class = void>
struct Saves : std::false_type {};
template <class State>
struct Saves<State, std::void_t<decltype(std::string(std::declval<const State &>().save()))>> : std::true_type {};

struct Instance {
  const Node *node;
  std::shared_ptr<void> state;
};

inline std::vector<Node> &nodes() {
  static std::vector<Node> all;
  return all;
}

/// Runs something that may throw; what is thrown is an error of the contract.
template <class Work>
KinoError *guarded(Work work) noexcept {
  try {
    work();
    return nullptr;
  } catch (const Error &error) {
    return host->new_error(str(error.what()), str(error.hint), str(error.code));
  } catch (const std::bad_alloc &) {
    return host->new_error(str("the plugin is out of memory"), str(""), str("out-of-memory"));
  } catch (const std::exception &error) {
    return host->new_error(str(error.what()), str("this is a bug of the plugin, or an input that it does not expect"),
                           str(""));
  } catch (...) {
    return host->new_error(str("the plugin threw what is no std::exception"), str(""), str(""));
  }
}

inline KinoError *open(KinoCall *, KinoStr id, KinoStr saved, KinoInstance **instance) {
  return guarded([&] {
    for (const Node &node : nodes()) {
      if (node.id != view(id)) continue;
      auto given = saved.data ? std::optional(view(saved)) : std::nullopt;
      *instance = reinterpret_cast<KinoInstance *>(new Instance{&node, node.make(given)});
      return;
    }
    throw Error("this build has no node `" + std::string(view(id)) + "`");
  });
}

inline KinoError *run(KinoCall *call, KinoInstance *instance, const KinoValue *const *values, std::size_t,
                      KinoValue **given, std::size_t count) {
  return guarded([&] {
    auto &own = *reinterpret_cast<Instance *>(instance);
    Inputs inputs{values};
    std::vector<Value> outputs = own.node->run(Cx(call), own.state.get(), inputs);
    for (std::size_t at = 0; at < count && at < outputs.size(); at++) given[at] = outputs[at].release();
  });
}

inline KinoError *save(KinoCall *, KinoInstance *instance, KinoValue **state) {
  return guarded([&] {
    auto &own = *reinterpret_cast<Instance *>(instance);
    *state = own.node->save(own.state.get()).release();
  });
}

inline void close(KinoInstance *instance) { delete reinterpret_cast<Instance *>(instance); }

inline void shutdown() {}

template <class Nodes>
const KinoPlugin *plugin(const KinoHost *table, Nodes all) noexcept {
  host = table;
  try {
    static std::string descriptor;
    static KinoPlugin plugin;
    if (nodes().empty()) nodes() = all();
    descriptor = "{\"nodes\": [";
    for (const Node &node : nodes()) descriptor += (&node == &nodes()[0] ? "" : ", ") + node.descriptor();
    descriptor += "]}";
    plugin.magic = KINO_MAGIC;
    plugin.major = KINO_MAJOR;
    plugin.minor = KINO_MINOR;
    plugin.size = sizeof plugin;
    plugin.capabilities = str("");
    plugin.descriptor = str(descriptor);
    plugin.open = open;
    plugin.run = run;
    plugin.save = save;
    plugin.close = close;
    plugin.shutdown = shutdown;
    return &plugin;
  } catch (const std::exception &error) {
    host->fail(nullptr, str(error.what()), str(""));
  } catch (...) {
    host->fail(nullptr, str("the plugin threw while it was loaded"), str(""));
  }
  return nullptr;
}

}  // namespace detail

/// A node of a function. Its parameters are inputs, what it returns is the output; several are a tuple.
template <class Given, class... Taken>
Node node(std::string_view id, std::string_view version, std::string_view about, Given (*function)(const Cx &, Taken...)) {
  return detail::node<Given, Taken...>(Node(id, version, about),
                                       [=](const Cx &cx, void *, auto &...one) { return function(cx, one...); });
}

/// A node with state: one object for each node of a graph. It is made by its default constructor, or by one that
/// takes what `save() const` of an older build gave, as std::string_view.
template <class State, class Given, class... Taken>
Node node(std::string_view id, std::string_view version, std::string_view about,
          Given (State::*method)(const Cx &, Taken...)) {
  Node made = detail::node<Given, Taken...>(
      Node(id, version, about).keys("\"state\": true"), [=](const Cx &cx, void *state, auto &...one) {
        return (static_cast<State *>(state)->*method)(cx, one...);
      });
  detail::with_state<State>(made);
  if constexpr (detail::Saves<State>::value) {
    made.save = [](void *state) { return Value::bytes(std::string(static_cast<const State *>(state)->save())); };
  }
  return made;
}

/// A guider: step, velocity with text, without it, and its parameters, to the velocity to follow.
template <class... Taken>
Node guider(std::string_view id, std::string_view version, std::string_view about,
            Tensor (*function)(const Cx &, Step, Tensor, Tensor, Taken...)) {
  return detail::guider<Taken...>(Node(id, version, about),
                                          [=](const Cx &cx, void *, auto &...one) { return function(cx, one...); });
}

/// A guider that remembers something from step to step: an object for each sampling run.
template <class State, class... Taken>
Node guider(std::string_view id, std::string_view version, std::string_view about,
            Tensor (State::*method)(const Cx &, Step, Tensor, Tensor, Taken...)) {
  Node made = detail::guider<Taken...>(Node(id, version, about), [=](const Cx &cx, void *state, auto &...one) {
    return (static_cast<State *>(state)->*method)(cx, one...);
  });
  detail::with_state<State>(made);
  return made;
}

}  // namespace kino

/// The entry of a plugin: its nodes.
#define KINO_PLUGIN(...)                                                                  \
  KINO_EXPORT const KinoPlugin *kino_plugin(const KinoHost *host) {                       \
    return kino::detail::plugin(host, [] { return std::vector<kino::Node>{__VA_ARGS__}; }); \
  }

#endif
