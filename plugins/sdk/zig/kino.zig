//! Nodes for Kinograph in Zig: functions, described at compile time.
//!
//! A thin layer over kino_plugin.h, which `zig translate-c` turns into contract.zig. What `c` has may be
//! used beside it: `raw` of a value is the handle that the functions of `host` take.

const std = @import("std");
pub const c = @import("contract.zig");

/// The functions of the host; there from the moment the plugin is loaded.
pub var host: *const c.KinoHost = undefined;

pub fn str(text: []const u8) c.KinoStr {
    return .{ .data = text.ptr, .len = text.len };
}

fn slice(text: c.KinoStr) []const u8 {
    return if (text.data == null) "" else text.data[0..text.len];
}

/// A call that failed: what stands in `Cx.failure` is what the user reads.
pub const Error = error{Kino};

/// The call of a node.
pub const Cx = struct {
    call: ?*c.KinoCall,
    failure: ?*c.KinoError = null,

    /// Ends with an error of the host, if it is one.
    pub fn check(self: *Cx, failure: ?*c.KinoError) Error!void {
        if (failure == null) return;
        c_release(self.failure);
        self.failure = failure;
        return error.Kino;
    }

    /// An error for the user: `return cx.fail("what is wrong", "what to do")`.
    pub fn fail(self: *Cx, message: []const u8, hint: []const u8) Error {
        c_release(self.failure);
        self.failure = host.new_error.?(str(message), str(hint), str(""));
        return error.Kino;
    }

    /// Ends the node if the run was cancelled; to be called some times a second.
    pub fn checkCancel(self: *Cx) Error!void {
        if (host.cancelled.?(self.call) == 0) return;
        c_release(self.failure);
        self.failure = host.new_error.?(str("cancelled"), str(""), str("cancelled"));
        return error.Kino;
    }

    /// Reports that `step` of `of` pieces of work are done.
    pub fn progress(self: *Cx, step: usize, of: usize) void {
        host.progress.?(self.call, step, of);
    }

    /// Whether anybody reads an output.
    pub fn wants(self: *Cx, output: usize) bool {
        return host.wants.?(self.call, output) != 0;
    }

    /// One operation on tensors (OPERATIONS.md), with attributes as JSON.
    pub fn op(self: *Cx, name: []const u8, tensors: []const Value, attributes: []const u8) Error!Value {
        var raw: [8]?*const c.KinoValue = undefined;
        if (tensors.len > raw.len) return self.fail("more than 8 tensors for one operation", "");
        for (tensors, 0..) |tensor, at| raw[at] = tensor.raw;
        var made: ?*c.KinoValue = null;
        try self.check(host.op.?(self.call, str(name), &raw, tensors.len, str(attributes), &made));
        return .{ .raw = made };
    }

    fn c_release(failure: ?*c.KinoError) void {
        host.release_error.?(failure);
    }
};

/// A value of the host: immutable. What a function gives belongs to the caller, who calls `deinit` or
/// returns it; inputs are lent.
pub const Value = struct {
    raw: ?*c.KinoValue,

    pub fn deinit(self: Value) void {
        host.release.?(self.raw);
    }

    pub fn real(self: Value, cx: *Cx) Error!f64 {
        var number: f64 = 0;
        try cx.check(host.get_f64.?(self.raw, &number));
        return number;
    }

    pub fn int(self: Value, cx: *Cx) Error!i64 {
        var number: i64 = 0;
        try cx.check(host.get_i64.?(self.raw, &number));
        return number;
    }

    pub fn truth(self: Value, cx: *Cx) Error!bool {
        var number: u32 = 0;
        try cx.check(host.get_bool.?(self.raw, &number));
        return number != 0;
    }

    /// The text; good as long as the value.
    pub fn text(self: Value, cx: *Cx) Error![]const u8 {
        var found: c.KinoStr = undefined;
        try cx.check(host.get_bytes.?(self.raw, &found));
        return slice(found);
    }

    pub fn field(self: Value, cx: *Cx, name: []const u8) Error!?Value {
        var found: ?*c.KinoValue = null;
        try cx.check(host.field.?(self.raw, str(name), &found));
        return if (found == null) null else .{ .raw = found };
    }

    pub fn len(self: Value) usize {
        return host.len.?(self.raw);
    }

    pub fn item(self: Value, cx: *Cx, index: usize) Error!Value {
        var found: ?*c.KinoValue = null;
        try cx.check(host.item.?(self.raw, index, null, &found));
        return .{ .raw = found };
    }

    /// Where a tensor lies and how.
    pub fn view(self: Value, cx: *Cx) Error!c.DLTensor {
        var seen: c.DLTensor = undefined;
        try cx.check(host.view_tensor.?(self.raw, &seen));
        return seen;
    }

    pub fn ofReal(cx: *Cx, number: f64) Error!Value {
        var made: ?*c.KinoValue = null;
        try cx.check(host.new_f64.?(number, &made));
        return .{ .raw = made };
    }

    pub fn ofInt(cx: *Cx, number: i64) Error!Value {
        var made: ?*c.KinoValue = null;
        try cx.check(host.new_i64.?(number, &made));
        return .{ .raw = made };
    }

    pub fn ofBool(cx: *Cx, yes: bool) Error!Value {
        var made: ?*c.KinoValue = null;
        try cx.check(host.new_bool.?(@intFromBool(yes), &made));
        return .{ .raw = made };
    }

    pub fn ofText(cx: *Cx, given: []const u8) Error!Value {
        var made: ?*c.KinoValue = null;
        try cx.check(host.new_text.?(str(given), &made));
        return .{ .raw = made };
    }
};

/// A tensor that a node takes or gives.
pub const Tensor = struct { value: Value };

/// Frames of a video, `[n, height, width, 3]` of f32 in 0…1, in chunks, each row-major in main memory.
pub const Frames = struct {
    value: Value,

    /// Frames a second; null where that is not known.
    pub fn fps(self: Frames, cx: *Cx) Error!?f64 {
        const rate = try self.value.field(cx, "fps") orelse return null;
        defer rate.deinit();
        return try rate.real(cx);
    }

    /// Frames of what a function makes of each sample and `with`; reports progress, ends when cancelled.
    pub fn mapEach(self: Frames, cx: *Cx, with: anytype, change: fn (@TypeOf(with), f32) f32) Error!Frames {
        const rate = try self.fps(cx) orelse std.math.nan(f64);
        var builder: ?*c.KinoFramesBuilder = null;
        try cx.check(host.new_frames_builder.?(cx.call, rate, &builder));
        defer host.release_frames_builder.?(builder);
        const chunks = try self.value.field(cx, "chunks") orelse return cx.fail("Frames without chunks", "");
        defer chunks.deinit();
        for (0..chunks.len()) |at| {
            try cx.checkCancel();
            const chunk = try chunks.item(cx, at);
            defer chunk.deinit();
            const made = try mapChunk(cx, chunk, with, change);
            defer made.deinit();
            try cx.check(host.push_frames.?(builder, made.raw));
            cx.progress(at + 1, chunks.len());
        }
        var frames: ?*c.KinoValue = null;
        const done = host.finish_frames.?(builder, &frames);
        builder = null;
        try cx.check(done);
        return .{ .value = .{ .raw = frames } };
    }

    fn mapChunk(cx: *Cx, chunk: Value, with: anytype, change: fn (@TypeOf(with), f32) f32) Error!Value {
        const in = try chunk.view(cx);
        var builder: ?*c.KinoTensorBuilder = null;
        try cx.check(host.new_tensor_builder.?(cx.call, in.dtype, in.shape, @intCast(in.ndim), 0, &builder));
        defer host.release_tensor_builder.?(builder);
        var out: c.DLTensor = undefined;
        try cx.check(host.builder_view.?(builder, &out));
        var count: usize = 1;
        for (in.shape[0..@intCast(in.ndim)]) |size| count *= @intCast(size);
        for (elements(f32, in)[0..count], elements(f32, out)[0..count]) |x, *y| y.* = change(with, x);
        var made: ?*c.KinoValue = null;
        const done = host.finish_tensor.?(builder, &made);
        builder = null;
        try cx.check(done);
        return .{ .raw = made };
    }
};

/// A list of values that a node takes or gives: `kino.List(f64)`. As an input it is a value of type
/// `List(Real)`, or what several edges bring where the port's keys say `"arity": "list"`.
pub fn List(comptime T: type) type {
    return struct {
        value: Value,

        pub const Item = T;
        const Self = @This();

        pub fn len(self: Self) usize {
            return self.value.len();
        }

        /// An item. One that is Frames, a Tensor or a Value belongs to the caller, who calls `deinit`;
        /// a text is good as long as the list.
        pub fn get(self: Self, cx: *Cx, index: usize) Error!T {
            const found = try self.value.item(cx, index);
            if (T == Frames or T == Tensor or T == Value) return read(T, cx, found.raw);
            defer found.deinit();
            return read(T, cx, found.raw);
        }

        /// A list of these; the caller keeps what they are made of.
        pub fn of(cx: *Cx, items: []const T) Error!Self {
            const fields = allocator.alloc(c.KinoField, items.len) catch return cx.fail("no memory for a list", "");
            defer allocator.free(fields);
            var done: usize = 0;
            defer for (fields[0..done]) |field| host.release.?(@constCast(field.value));
            for (items) |given| {
                const made = try make(cx, given);
                fields[done] = .{ .name = str(""), .value = host.retain.?(made.raw) };
                done += 1;
                if (T != Frames and T != Tensor and T != Value) made.deinit();
            }
            var list: ?*c.KinoValue = null;
            try cx.check(host.new_list.?(fields.ptr, fields.len, &list));
            return .{ .value = .{ .raw = list } };
        }
    };
}

/// A step of a sampling run: `index` of `count`, and its noise level.
pub const Step = struct { index: i64, count: i64, sigma: f64 };

/// What lists and state of nodes are allocated with.
const allocator = std.heap.c_allocator;

/// The elements that a view shows, in main memory.
pub fn elements(comptime T: type, seen: c.DLTensor) [*]T {
    const bytes: [*]u8 = @ptrCast(seen.data.?);
    return @ptrCast(@alignCast(bytes + seen.byte_offset));
}

/// An input or output: its name, and more keys of DESCRIPTOR.md as JSON.
pub const Port = struct { name: []const u8, keys: []const u8 = "" };

fn isList(comptime T: type) bool {
    return @typeInfo(T) == .@"struct" and @hasDecl(T, "Item");
}

fn typeName(comptime T: type) []const u8 {
    if (@typeInfo(T) == .optional) return typeName(@typeInfo(T).optional.child);
    if (isList(T)) return "List(" ++ typeName(T.Item) ++ ")";
    return switch (T) {
        Frames => "Frames",
        Tensor => "Tensor",
        Value => "Any",
        f64 => "Real",
        i64 => "Int",
        bool => "Bool",
        []const u8 => "Text",
        else => @compileError("a port is Frames, Tensor, Value, f64, i64, bool or []const u8, not " ++ @typeName(T)),
    };
}

fn portJson(comptime port: Port, comptime T: type) []const u8 {
    const more = if (port.keys.len == 0) "" else ", " ++ port.keys;
    // Keys may name another type than the function's, such as `"type": "Mask"` of a Tensor.
    const named = std.mem.indexOf(u8, port.keys, "\"type\"") != null;
    const gathers = std.mem.indexOf(u8, port.keys, "\"arity\"") != null;
    const Item = if (gathers and comptime isList(T)) T.Item else T;
    const kind = if (named) "" else ", \"type\": \"" ++ typeName(Item) ++ "\"";
    const optional = @typeInfo(T) == .optional and !gathers;
    const arity = if (optional) ", \"arity\": \"optional\"" else "";
    return "{\"name\": \"" ++ port.name ++ "\"" ++ kind ++ arity ++ more ++ "}";
}

fn read(comptime T: type, cx: *Cx, raw: ?*const c.KinoValue) Error!T {
    if (@typeInfo(T) == .optional) {
        return if (raw == null) null else try read(@typeInfo(T).optional.child, cx, raw);
    }
    if (comptime isList(T)) return .{ .value = .{ .raw = @constCast(raw) } };
    const value: Value = .{ .raw = @constCast(raw) };
    return switch (T) {
        Frames, Tensor => .{ .value = value },
        Value => value,
        f64 => value.real(cx),
        i64 => value.int(cx),
        bool => value.truth(cx),
        else => value.text(cx),
    };
}

fn make(cx: *Cx, given: anytype) Error!Value {
    if (comptime isList(@TypeOf(given))) return given.value;
    return switch (@TypeOf(given)) {
        Frames, Tensor => given.value,
        Value => given,
        f64 => Value.ofReal(cx, given),
        i64 => Value.ofInt(cx, given),
        bool => Value.ofBool(cx, given),
        else => Value.ofText(cx, given),
    };
}

/// What an instance of a node is: which one, and its state.
const Instance = struct { at: usize, state: ?*anyopaque };

/// Exports a plugin: a tuple of nodes, each `.{ .id, .version, .about, .inputs, .output, .run }`.
/// `run` takes `*Cx`, then a parameter for each input, and gives the output or an error. A parameter of
/// type `?T` is null where nobody feeds it.
///
/// **State**: with `.state = Tone`, a struct, `run` takes `*Cx, *Tone`, then the inputs. It is made by
/// `pub fn init(cx: *Cx, saved: ?[]const u8) !Tone` (else by `.{}`), with what an older build saved by
/// `pub fn save(self: *Tone, buffer: []u8) []const u8` (at most 64 KiB); `pub fn deinit(self: *Tone) void`
/// ends it.
///
/// **Guiders**: with `.guider = true`, `run` takes `*Cx` (`*Tone`), `Step`, the velocities with and
/// without text (`Tensor` both), then a parameter for each input, and gives the velocity to follow.
pub fn plugin(comptime nodes: anytype) void {
    const Table = struct {
        const described = blk: {
            var json: []const u8 = "{\"nodes\": [";
            for (nodes, 0..) |node, at| {
                json = json ++ (if (at == 0) "" else ", ") ++ describe(node);
            }
            break :blk json ++ "]}";
        };

        fn describe(comptime node: anytype) []const u8 {
            const arguments: std.meta.ArgsTuple(@TypeOf(node.run)) = undefined;
            var inputs: []const u8 = "";
            for (node.inputs, first(node)..) |port, at| {
                inputs = inputs ++ (if (inputs.len == 0) "" else ", ") ++ portJson(port, @TypeOf(arguments[at]));
            }
            const output = if (isGuider(node))
                "{\"name\": \"" ++ node.output.name ++ "\", \"type\": \"Guider\"}"
            else
                portJson(node.output, Given(@TypeOf(node.run)));
            const flags = (if (isGuider(node)) ", \"guider\": true" else "") ++
                (if (hasState(node) and !isGuider(node)) ", \"state\": true" else "");
            return "{\"id\": \"" ++ node.id ++ "\", \"version\": \"" ++ node.version ++ "\", \"about\": \"" ++
                node.about ++ "\"" ++ flags ++ ", \"inputs\": [" ++ inputs ++ "], \"outputs\": [" ++ output ++ "]}";
        }

        fn hasState(comptime node: anytype) bool {
            return @hasField(@TypeOf(node), "state");
        }

        fn isGuider(comptime node: anytype) bool {
            return @hasField(@TypeOf(node), "guider") and node.guider;
        }

        /// The parameter of the first input.
        fn first(comptime node: anytype) usize {
            return 1 + @as(usize, @intFromBool(hasState(node))) + @as(usize, if (isGuider(node)) 3 else 0);
        }

        fn told(cx: *Cx, failed: anyerror) ?*c.KinoError {
            if (cx.failure) |failure| return failure;
            const hint = "this is a bug of the plugin, or an input that it does not expect";
            return host.new_error.?(str(@errorName(failed)), str(hint), str(""));
        }

        fn open(call: ?*c.KinoCall, id: c.KinoStr, saved: c.KinoStr, instance: [*c]?*c.KinoInstance) callconv(.c) ?*c.KinoError {
            var cx: Cx = .{ .call = call };
            inline for (nodes, 0..) |node, at| {
                if (std.mem.eql(u8, node.id, slice(id))) {
                    const made = openNode(node, at, &cx, saved) catch |failed| return told(&cx, failed);
                    instance.* = @ptrCast(made);
                    return null;
                }
            }
            return host.new_error.?(str("this build has no such node"), str(""), str(""));
        }

        fn openNode(comptime node: anytype, at: usize, cx: *Cx, saved: c.KinoStr) !*Instance {
            const made = try allocator.create(Instance);
            errdefer allocator.destroy(made);
            made.* = .{ .at = at, .state = null };
            if (comptime hasState(node)) {
                const state = try allocator.create(node.state);
                errdefer allocator.destroy(state);
                const given = slice(saved);
                state.* = if (@hasDecl(node.state, "init"))
                    try node.state.init(cx, if (given.len == 0) null else given)
                else
                    .{};
                made.state = state;
            }
            return made;
        }

        fn own(instance: ?*c.KinoInstance) *Instance {
            return @ptrCast(@alignCast(instance.?));
        }

        fn run(call: ?*c.KinoCall, instance: ?*c.KinoInstance, inputs: [*c]const ?*const c.KinoValue, _: usize, outputs: [*c]?*c.KinoValue, _: usize) callconv(.c) ?*c.KinoError {
            var cx: Cx = .{ .call = call };
            inline for (nodes, 0..) |node, at| {
                if (own(instance).at == at) {
                    const given = runNode(node, &cx, own(instance), inputs) catch |failed| return told(&cx, failed);
                    outputs[0] = given.raw;
                    return null;
                }
            }
            unreachable;
        }

        fn runNode(comptime node: anytype, cx: *Cx, instance: *Instance, inputs: [*c]const ?*const c.KinoValue) !Value {
            var arguments: std.meta.ArgsTuple(@TypeOf(node.run)) = undefined;
            arguments[0] = cx;
            if (comptime hasState(node)) arguments[1] = @ptrCast(@alignCast(instance.state.?));
            const begin = comptime first(node);
            if (comptime isGuider(node)) {
                // step, of, sigma, with_text, without_text
                const index, const count = .{ try read(i64, cx, inputs[0]), try read(i64, cx, inputs[1]) };
                arguments[begin - 3] = .{ .index = index, .count = count, .sigma = try read(f64, cx, inputs[2]) };
                arguments[begin - 2] = try read(Tensor, cx, inputs[3]);
                arguments[begin - 1] = try read(Tensor, cx, inputs[4]);
            }
            const skipped = if (comptime isGuider(node)) 5 else 0;
            inline for (begin..arguments.len) |at| {
                arguments[at] = try read(@TypeOf(arguments[at]), cx, inputs[at - begin + skipped]);
            }
            return make(cx, try @call(.auto, node.run, arguments));
        }

        fn save(call: ?*c.KinoCall, instance: ?*c.KinoInstance, state: [*c]?*c.KinoValue) callconv(.c) ?*c.KinoError {
            _ = call;
            state.* = null;
            inline for (nodes, 0..) |node, at| {
                if (comptime hasState(node)) if (@hasDecl(node.state, "save")) if (own(instance).at == at) {
                    const kept: *node.state = @ptrCast(@alignCast(own(instance).state.?));
                    var buffer: [1 << 16]u8 = undefined;
                    const failure = host.new_bytes.?(str(kept.save(&buffer)), state);
                    return failure;
                };
            }
            return null;
        }

        fn close(instance: ?*c.KinoInstance) callconv(.c) void {
            inline for (nodes, 0..) |node, at| {
                if (comptime hasState(node)) if (own(instance).at == at) {
                    const kept: *node.state = @ptrCast(@alignCast(own(instance).state.?));
                    if (@hasDecl(node.state, "deinit")) kept.deinit();
                    allocator.destroy(kept);
                };
            }
            allocator.destroy(own(instance));
        }

        fn shutdown() callconv(.c) void {}

        const table: c.KinoPlugin = .{
            .magic = c.KINO_MAGIC,
            .major = c.KINO_MAJOR,
            .minor = c.KINO_MINOR,
            .size = @sizeOf(c.KinoPlugin),
            .capabilities = .{ .data = "", .len = 0 },
            .descriptor = .{ .data = described.ptr, .len = described.len },
            .open = open,
            .run = run,
            .save = save,
            .close = close,
            .shutdown = shutdown,
        };

        fn entry(given: *const c.KinoHost) callconv(.c) *const c.KinoPlugin {
            host = given;
            return &table;
        }
    };
    @export(&Table.entry, .{ .name = "kino_plugin" });
}

fn Given(comptime Function: type) type {
    return @typeInfo(@typeInfo(Function).@"fn".return_type.?).error_union.payload;
}
