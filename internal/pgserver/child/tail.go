package child

import (
	"io"
	"sync"
)

// Tail passes everything on and remembers the end of it, at most size bytes. A failing destination
// is ignored: a child must not die of a full pipe or a closed log.
type Tail struct {
	mu   sync.Mutex
	to   io.Writer
	size int
	end  []byte
}

// NewTail remembers size bytes. A nil destination discards the rest.
func NewTail(to io.Writer, size int) *Tail {
	t := &Tail{size: size}
	t.Redirect(to)
	return t
}

// Write never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = t.to.Write(p)
	t.end = append(t.end, p...)
	if extra := len(t.end) - t.size; extra > t.size/2 { // not at each write: moving the rest costs
		t.end = append(t.end[:0], t.end[extra:]...)
	}
	return len(p), nil
}

// Redirect changes the destination; nil discards.
func (t *Tail) Redirect(to io.Writer) {
	if to == nil {
		to = io.Discard
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.to = to
}

// String is what was remembered.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.end[max(0, len(t.end)-t.size):])
}
