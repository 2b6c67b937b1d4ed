// SPDX-License-Identifier: GPL-2.0

// loader DEV OBJECT: give the device the policy of the object, or change the one that it has to
// that; then, for each line of the input, say what the qdisc has counted.
//
//	CGO_CFLAGS=-I/usr/include/sch-bpf CGO_LDFLAGS=/usr/lib/x86_64-linux-gnu/sch-bpf/libbpf.a go build loader.go
package main

// #cgo LDFLAGS: -lelf -lz
// #include <bpf/libbpf.h>
import "C"

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

func check(what string, err C.int) {
	if err < 0 {
		fmt.Fprintf(os.Stderr, "loader: %s: %s\n", what, syscall.Errno(-err))
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "Usage: loader DEV OBJECT")
		os.Exit(2)
	}
	device, err := net.InterfaceByName(os.Args[1])
	if err != nil {
		check(os.Args[1], -C.int(syscall.ENODEV))
	}
	ifindex := C.int(device.Index)
	object, err := C.bpf_object__open_file(C.CString(os.Args[2]), nil)
	if object == nil {
		check(os.Args[2], -C.int(err.(syscall.Errno)))
	}
	C.bpf_object__reuse_qdisc_maps(object, ifindex, nil) // where packets may wait
	check("load", C.bpf_object__load(object))
	fmt.Println("loaded")
	fds := map[string]C.int{"qdisc/enqueue": -1, "qdisc/dequeue": -1}
	for p := C.bpf_object__next_program(object, nil); p != nil; p = C.bpf_object__next_program(object, p) {
		fds[C.GoString(C.bpf_program__section_name(p))] = C.bpf_program__fd(p)
	}
	opts := C.struct_bpf_qdisc_opts{sz: C.sizeof_struct_bpf_qdisc_opts, flags: C.BPF_QDISC_F_REPLACE,
		object: C.CString(filepath.Base(os.Args[2]))}
	check("attach", C.bpf_qdisc_attach(ifindex, fds["qdisc/enqueue"], fds["qdisc/dequeue"], &opts))
	fmt.Println("attached")
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		info := C.struct_bpf_qdisc_info{sz: C.sizeof_struct_bpf_qdisc_info}
		check("query", C.bpf_qdisc_query(ifindex, nil, &info))
		fmt.Println(info.packets, "packets", info.bytes, "bytes", info.drops, "drops", info.qlen, "queued")
	}
}
