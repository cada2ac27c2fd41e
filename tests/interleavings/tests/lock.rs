//! The lock of the engine that workers share: `vhost/src/memory/shared.rs`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use loom::model::Builder;
use loom::thread;
use weft_tests_interleavings::memory::{Guarded, Handle};

/// Threads that do these, each with a handle of its own; the last one is the main thread.
fn all(acts: &'static [fn(&mut Handle<Guarded>)], sum: u32) {
    let mut builder = Builder::new();
    // In every order with so many changes of thread where none has to wait: with two, mistakes that were planted are found.
    builder.preemption_bound = Some(2);
    builder.max_branches = 10_000;
    builder.check(move || {
        let mut handles = Handle::all(Guarded::new(0), acts.len() + 1);
        let mut last = handles.pop().unwrap();
        let (act, others) = acts.split_last().unwrap();
        let threads: Vec<_> = handles
            .drain(1..)
            .zip(others)
            .map(|(mut handle, act)| thread::spawn(move || act(&mut handle)))
            .collect();
        act(&mut last);
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(last.read().get(), sum);
    });
}

fn reads(handle: &mut Handle<Guarded>) {
    let guard = handle.read();
    let before = guard.get();
    assert_eq!(guard.get(), before, "nobody changes it meanwhile");
}

fn changes(handle: &mut Handle<Guarded>) {
    handle.write().add(1);
}

fn reads_then_changes(handle: &mut Handle<Guarded>) {
    let before = handle.read().get();
    let mut guard = handle.write();
    assert!(guard.get() >= before);
    guard.add(1);
}

#[test]
fn who_changes_is_alone_with_one_that_reads() {
    all(&[reads, changes], 1);
}

#[test]
fn of_two_that_change_none_is_lost() {
    all(&[changes, changes], 2);
}

#[test]
fn a_reader_may_turn_into_one_that_changes() {
    all(&[reads_then_changes, changes], 2);
}
