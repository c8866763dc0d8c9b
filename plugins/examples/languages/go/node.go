// Nodes for Kinograph as a component, in Go.
package export_kino_plugin_node

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	witTypes "go.bytecodealliance.org/pkg/wit/types"
	host "wit_component/kino_plugin_host"
	kino "wit_component/kino_plugin_types"
)

type value = *host.Value

// The collector may not run while the host hands memory over: it runs where `runtime.GC` says.
func init() { debug.SetGCPercent(-1) }

func Describe() string {
	return `{"nodes": [
		{"id": "go.gain", "version": "1.0.0", "about": "Multiplies every frame by a gain.",
		 "inputs": [{"name": "frames", "type": "Frames"},
			{"name": "gain", "type": "Real", "default": 1.5, "range": [0.0, 4.0]}],
		 "outputs": [{"name": "frames", "type": "Frames", "like": "frames"}]},
		{"id": "go.count", "version": "1.0.0", "state": true,
		 "about": "How often the builds before this one ran.",
		 "inputs": [{"name": "of", "type": "Any"}], "outputs": [{"name": "runs", "type": "Int"}]},
		{"id": "go.read", "version": "1.0.0", "about": "The bytes of a file.",
		 "inputs": [{"name": "path", "type": "Path"}],
		 "outputs": [{"name": "bytes", "type": "Tensor"}]}
	]}`
}

// The engine's resource: what must be kept from one run to the next lies in it. `pinner` and
// `handle` are of the bindings.
type Instance struct {
	pinner runtime.Pinner
	handle int32
	node   string
	state  [2]int64 // how often all builds ran, and those before this one
}

func (*Instance) OnDrop() {}

// An error of the host, on its way through Go's `panic` to `Run`.
type failed struct{ failure kino.Failure }

func must[T any](result witTypes.Result[T, kino.Failure]) T {
	if result.IsErr() {
		panic(failed{result.Err()})
	}
	return result.Ok()
}

func InstanceOpen(node string, saved witTypes.Option[[]uint8]) witTypes.Result[*Instance, kino.Failure] {
	// What arrives lies in memory of the call.
	self := &Instance{node: strings.Clone(node)}
	if saved.IsSome() {
		fmt.Sscan(string(saved.Some()), &self.state[0])
		self.state[1] = self.state[0]
	}
	return witTypes.Ok[*Instance, kino.Failure](self)
}

func (self *Instance) Save() witTypes.Result[witTypes.Option[[]uint8], kino.Failure] {
	saved := witTypes.Some([]byte(fmt.Sprint(self.state[0])))
	return witTypes.Ok[witTypes.Option[[]uint8], kino.Failure](saved)
}

// By operations of the host: its loops are vectors, and run on all cores.
func brighten(chunk value, gain float64) value {
	scaled := must(host.Op("affine", []value{chunk}, fmt.Sprintf(`{"mul": %v, "add": 0}`, gain)))
	defer scaled.Drop()
	return must(host.Op("clamp", []value{scaled}, `{"min": 0, "max": 1}`))
}

func mapFrames(frames value, work func(value) value) value {
	chunks := must(frames.Field("chunks")).Some()
	defer chunks.Drop()
	rate := witTypes.None[float64]()
	if fps := must(frames.Field("fps")); fps.IsSome() {
		rate = witTypes.Some(must(fps.Some().AsF64()))
	}
	builder := must(host.FramesBuilderNew(rate))
	for i := uint32(0); i < chunks.Len(); i++ {
		if host.Cancelled() {
			panic(failed{kino.MakeFailureCancelled()})
		}
		chunk := must(chunks.Item(i)).F1
		made := work(chunk)
		must(builder.Push(made))
		// Handles are not released by the garbage collector in time.
		chunk.Drop()
		made.Drop()
		runtime.GC()
		host.Progress(i+1, chunks.Len())
	}
	return must(host.FramesBuilderFinish(builder))
}

func (self *Instance) run(inputs []witTypes.Option[value]) value {
	switch self.node {
	case "go.gain":
		gain := must(inputs[1].Some().AsF64())
		return mapFrames(inputs[0].Some(), func(chunk value) value { return brighten(chunk, gain) })
	case "go.count":
		self.state[0]++
		return must(host.NewS64(self.state[1]))
	default:
		return must(host.ReadFile(must(inputs[0].Some().AsText())))
	}
}

func (self *Instance) Run(inputs []witTypes.Option[value]) (result witTypes.Result[[]witTypes.Option[value], kino.Failure]) {
	defer func() {
		for _, input := range inputs {
			if input.IsSome() {
				input.Some().Drop()
			}
		}
		switch raised := recover().(type) {
		case nil:
		case failed:
			result = witTypes.Err[[]witTypes.Option[value], kino.Failure](raised.failure)
		default:
			// Otherwise Go would end the component.
			message := fmt.Sprint(raised)
			result = witTypes.Err[[]witTypes.Option[value], kino.Failure](kino.MakeFailureFailed(kino.Error{Message: message}))
		}
	}()
	made := self.run(inputs)
	return witTypes.Ok[[]witTypes.Option[value], kino.Failure]([]witTypes.Option[value]{witTypes.Some(made)})
}
