// SPDX-License-Identifier: GPL-2.0
//! loader DEV OBJECT: give the device the policy of the object, or change the one that it has to
//! that; then, for each line of the input, say what the qdisc has counted.
//!
//!     rustc -O -L /usr/lib/x86_64-linux-gnu/sch-bpf -l static=bpf -l elf -l z loader.rs

use std::{collections::HashMap, env, ffi::c_void, ffi::CStr, ffi::CString, io, io::Error, path::Path, process, ptr};

// The first members of libbpf's; sz tells it how many
#[repr(C)]
struct QdiscOpts { sz: usize, parent: u32, handle: u32, flags: u32, limit: u32, object: *const i8 }

#[repr(C)]
#[derive(Default)]
struct QdiscInfo { sz: usize, ids: [u32; 5], qlen: u32, backlog: u32, drops: u32, other: [u32; 2], bytes: u64, packets: u64 }

const REPLACE: u32 = 1; // BPF_QDISC_F_REPLACE

extern "C" {
    fn if_nametoindex(name: *const i8) -> i32;
    fn bpf_object__open_file(path: *const i8, opts: *const c_void) -> *mut c_void;
    fn bpf_object__reuse_qdisc_maps(object: *mut c_void, ifindex: i32, opts: *const QdiscOpts) -> i32;
    fn bpf_object__load(object: *mut c_void) -> i32;
    fn bpf_object__next_program(object: *mut c_void, program: *mut c_void) -> *mut c_void;
    fn bpf_program__section_name(program: *mut c_void) -> *const i8;
    fn bpf_program__fd(program: *mut c_void) -> i32;
    fn bpf_qdisc_attach(ifindex: i32, enqueue: i32, dequeue: i32, opts: *const QdiscOpts) -> i32;
    fn bpf_qdisc_query(ifindex: i32, opts: *const QdiscOpts, info: *mut QdiscInfo) -> i32;
}

/// errno is of the last call
fn check(what: &str, failed: bool) {
    if failed {
        eprintln!("loader: {what}: {}", Error::last_os_error());
        process::exit(1);
    }
}

fn main() {
    let args: Vec<String> = env::args().collect();
    if args.len() != 3 {
        eprintln!("Usage: loader DEV OBJECT");
        process::exit(2);
    }
    let (dev, path) = (CString::new(&*args[1]).unwrap(), CString::new(&*args[2]).unwrap());
    let name = CString::new(Path::new(&args[2]).file_name().unwrap().to_str().unwrap()).unwrap();
    unsafe {
        let ifindex = if_nametoindex(dev.as_ptr());
        check(&args[1], ifindex == 0);
        let object = bpf_object__open_file(path.as_ptr(), ptr::null());
        check(&args[2], object.is_null());
        bpf_object__reuse_qdisc_maps(object, ifindex, ptr::null()); // where packets may wait
        check("load", bpf_object__load(object) < 0);
        println!("loaded");
        let mut fds = HashMap::new();
        let mut program = bpf_object__next_program(object, ptr::null_mut());
        while !program.is_null() {
            fds.insert(CStr::from_ptr(bpf_program__section_name(program)).to_str().unwrap(), bpf_program__fd(program));
            program = bpf_object__next_program(object, program);
        }
        let fd = |section| *fds.get(section).unwrap_or(&-1);
        let opts = QdiscOpts { sz: std::mem::size_of::<QdiscOpts>(), parent: 0, handle: 0, flags: REPLACE, limit: 0, object: name.as_ptr() };
        check("attach", bpf_qdisc_attach(ifindex, fd("qdisc/enqueue"), fd("qdisc/dequeue"), &opts) < 0);
        println!("attached");
        for _ in io::stdin().lines() {
            let mut info = QdiscInfo { sz: std::mem::size_of::<QdiscInfo>(), ..Default::default() };
            check("query", bpf_qdisc_query(ifindex, ptr::null(), &mut info) < 0);
            println!("{} packets {} bytes {} drops {} queued", info.packets, info.bytes, info.drops, info.qlen);
        }
    }
}
