//! NAME: nodes for Kinograph, in Zig.

const kino = @import("kino.zig");

fn gain(cx: *kino.Cx, frames: kino.Frames, factor: f64) !kino.Frames {
    return frames.mapEach(cx, @as(f32, @floatCast(factor)), brighten);
}

fn brighten(factor: f32, x: f32) f32 {
    return @min(x * factor, 1.0);
}

comptime {
    kino.plugin(.{.{
        .id = "NAME.gain",
        .version = "0.1.0",
        .about = "Multiplies every frame by a gain.",
        .inputs = [_]kino.Port{ .{ .name = "frames" }, .{ .name = "gain", .keys = "\"default\": 1.5, \"range\": [0.0, 4.0]" } },
        .output = kino.Port{ .name = "frames", .keys = "\"like\": \"frames\"" },
        .run = gain,
    }});
}
