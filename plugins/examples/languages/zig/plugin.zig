//! Nodes that remember, gather and guide.

const std = @import("std");
const kino = @import("kino.zig");

/// How often it ran.
const Count = struct {
    runs: u32 = 0,
    before: u32 = 0,

    pub fn init(cx: *kino.Cx, saved: ?[]const u8) !Count {
        const text = saved orelse return .{};
        const before = std.fmt.parseInt(u32, text, 10) catch return cx.fail("saved by another build", "");
        return .{ .runs = before, .before = before };
    }

    pub fn save(self: *Count, buffer: []u8) []const u8 {
        return std.fmt.bufPrint(buffer, "{d}", .{self.runs}) catch "";
    }
};

fn count(cx: *kino.Cx, state: *Count, of: kino.Value) !i64 {
    _ = .{ cx, of };
    state.runs += 1;
    return state.before;
}

/// The mean of numbers, and of one more where it is fed.
fn mean(cx: *kino.Cx, numbers: kino.List(f64), more: ?f64) !f64 {
    var sum: f64 = more orelse 0;
    const total = numbers.len() + @intFromBool(more != null);
    for (0..numbers.len()) |at| sum += try numbers.get(cx, at);
    if (total == 0) return cx.fail("no numbers have no mean", "feed `numbers`");
    return sum / @as(f64, @floatFromInt(total));
}

fn steps(cx: *kino.Cx, most: i64) !kino.List(i64) {
    var numbers: [16]i64 = undefined;
    for (&numbers, 0..) |*number, at| number.* = @intCast(at);
    return kino.List(i64).of(cx, numbers[0..@intCast(@min(most, 16))]);
}

fn fading(cx: *kino.Cx, step: kino.Step, with: kino.Tensor, without: kino.Tensor, scale: f64) !kino.Tensor {
    const left = 1.0 - @as(f64, @floatFromInt(step.index)) / @as(f64, @floatFromInt(step.count));
    var buffer: [64]u8 = undefined;
    const attributes = std.fmt.bufPrint(&buffer, "{{\"mul\": {d}, \"add\": 0.0}}", .{1.0 + (scale - 1.0) * left}) catch unreachable;
    const change = try cx.op("sub", &.{ with.value, without.value }, "");
    defer change.deinit();
    const scaled = try cx.op("affine", &.{change}, attributes);
    defer scaled.deinit();
    return .{ .value = try cx.op("add", &.{ without.value, scaled }, "") };
}

comptime {
    kino.plugin(.{
        .{
            .id = "zed.count",
            .version = "1.0.0",
            .about = "How often the builds before this one ran.",
            .state = Count,
            .inputs = [_]kino.Port{.{ .name = "of" }},
            .output = kino.Port{ .name = "before" },
            .run = count,
        },
        .{
            .id = "zed.mean",
            .version = "1.0.0",
            .about = "The mean of numbers.",
            .inputs = [_]kino.Port{ .{ .name = "numbers", .keys = "\"arity\": \"list\"" }, .{ .name = "more" } },
            .output = kino.Port{ .name = "mean" },
            .run = mean,
        },
        .{
            .id = "zed.steps",
            .version = "1.0.0",
            .about = "The numbers from 0 on.",
            .inputs = [_]kino.Port{.{ .name = "most", .keys = "\"default\": 4, \"range\": [0, 16]" }},
            .output = kino.Port{ .name = "numbers" },
            .run = steps,
        },
        .{
            .id = "zed.fading",
            .version = "1.0.0",
            .about = "Guides less and less.",
            .guider = true,
            .inputs = [_]kino.Port{.{ .name = "scale", .keys = "\"default\": 6.0, \"range\": [1.0, 20.0]" }},
            .output = kino.Port{ .name = "guider" },
            .run = fading,
        },
    });
}
