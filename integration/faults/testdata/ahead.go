package time

import (
	"syscall"
	"unsafe"
)

// clockStep is by how many seconds the wall clock is ahead of the machine's: the mapped file that
// TEST_CLOCK_STEP names.
var clockStep = mapClock()

func mapClock() *int64 {
	if path, ok := syscall.Getenv("TEST_CLOCK_STEP"); ok {
		if fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0); err == nil {
			if file, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED); err == nil {
				return (*int64)(unsafe.Pointer(&file[0]))
			}
		}
	}
	return new(int64)
}

func ahead() int64 {
	if clockStep == nil {
		return 0 // the package is not ready
	}
	return *clockStep
}
