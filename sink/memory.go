package sink

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// arenaSize is the size of the memory that the bytes of events share.
	arenaSize = 128 << 10
	// slabSize is how many flights share memory.
	slabSize = 64
)

// slab is the memory of some flights, and arena that of the bytes of some events. Both are used
// again once all of their events are published, so a backlog leaves no garbage behind. The memory
// of an event that is never published is left to the garbage collector.
type slab struct {
	flights [slabSize]flight
	used    int
	pending atomic.Int32 // flights that are not published, and 1 while the builder fills it
}

type arena struct {
	bytes   [arenaSize]byte
	used    int
	pending atomic.Int32 // as that of a slab
}

// The garbage collector takes what a pool has not given out for two cycles.
var (
	slabs  = sync.Pool{New: newSlab}
	arenas = sync.Pool{New: func() any { return new(arena) }}
)

// newSlab makes the promises of its flights, which stay with them.
func newSlab() any {
	s := new(slab)
	for i := range s.flights {
		f := &s.flights[i]
		f.promise = func(_ *kgo.Record, err error) { f.sink.promise(f, err) }
	}
	return s
}

func (s *slab) release() {
	if s != nil && s.pending.Add(-1) == 0 {
		for i := range s.flights[:s.used] {
			f := &s.flights[i]
			*f = flight{promise: f.promise}
		}
		s.used = 0
		slabs.Put(s)
	}
}

func (a *arena) release() {
	if a != nil && a.pending.Add(-1) == 0 {
		a.used = 0
		arenas.Put(a)
	}
}

// free gives the memory of a flight back. Nobody may use the flight or its record any more.
func (f *flight) free() {
	bytes, own, flights := f.arena, f.block, f.slab
	bytes.release()
	if own != nil {
		blocks[own.class].Put(own)
	}
	flights.release()
}

// flight returns the next flight. It is zero but for its promise, slab and sink.
func (b *builder) flight() *flight {
	if b.slab == nil || b.slab.used == slabSize {
		b.slab.release()
		b.slab = slabs.Get().(*slab)
		b.slab.pending.Store(1)
	}
	b.slab.pending.Add(1)
	f := &b.slab.flights[b.slab.used]
	b.slab.used++
	f.slab, f.sink = b.slab, b.sink
	return f
}

// block is the memory of a large event.
type block struct {
	bytes []byte
	class int
}

// blocks are those that are free, by class. There are four classes between two powers of two, so
// that little of a block stays unused.
var blocks [blockClasses]sync.Pool

const (
	smallestBlock = arenaSize / 8 // the first class is larger than that
	blockClasses  = 4 * 14        // up to 256 MiB; what is larger is the collector's
)

// blockClass returns the class of blocks that hold n bytes, and their size.
func blockClass(n int) (class, size int) {
	// smallestBlock << power holds n, and half of it does not: 1 to 4 quarters of that are needed
	// too.
	power := bits.Len(uint((n - 1) / smallestBlock))
	half := smallestBlock << power >> 1
	quarters := (n - half + half/4 - 1) / (half / 4)
	return 4*(power-1) + quarters - 1, half + quarters*(half/4)
}

func (f *flight) takeBlock(n int) []byte {
	class, size := blockClass(n)
	if class >= blockClasses {
		return make([]byte, n)
	}
	f.block, _ = blocks[class].Get().(*block)
	if f.block == nil {
		f.block = &block{make([]byte, size), class}
	}
	return f.block.bytes[:n:n]
}

// take returns n bytes that belong to an event. A large event gets memory of its own: in an arena,
// it would keep that of many others.
func (b *builder) take(f *flight, n int) []byte {
	if n > smallestBlock {
		return f.takeBlock(n)
	}
	if b.arena == nil || n > arenaSize-b.arena.used {
		b.arena.release()
		b.arena = arenas.Get().(*arena)
		b.arena.pending.Store(1)
	}
	b.arena.pending.Add(1)
	f.arena = b.arena
	p := b.arena.bytes[b.arena.used : b.arena.used+n : b.arena.used+n]
	b.arena.used += n
	return p
}
