//! The binary's allocator, mimalloc, and how often it was asked for memory: what a saga and a request that passes cost in that is held
//! against figures by `tests/tests/counts.rs`, and told by a metric.
#![allow(unsafe_code)]

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// A thread tells the others of so many at once, so that they share no cache line at each.
const TOLD: u64 = 32;

/// Of all threads, but for what each has not told yet.
static ALL: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// This thread's that it has not told.
    static OWN: Cell<u64> = const { Cell::new(0) };
}

/// Blocks of memory that were asked for since the start, grown ones again: a few less for each thread that lives.
#[must_use]
pub fn count() -> u64 {
    ALL.load(Ordering::Relaxed)
}

/// mimalloc, whose allocations are counted. A saga's memory is taken on one thread and given back on another, hundreds of times.
#[derive(Debug)]
pub struct Allocator;

/// Whether a block is aligned so without a word: those of at least that many bytes are (mimalloc's `MI_MAX_ALIGN_SIZE`). To ask for it
/// takes as long again as to allocate.
fn is_aligned_anyhow(size: usize, align: usize) -> bool {
    align <= 16 && align <= size
}

fn one_more() {
    // A thread that is ending tells no more.
    let _ = OWN.try_with(|own| {
        let count = own.get() + 1;
        if count == TOLD {
            ALL.fetch_add(count, Ordering::Relaxed);
        }
        own.set(count % TOLD);
    });
}

// SAFETY: mimalloc's blocks are as long as was asked for, and aligned as asked for or as it aligns each of that size. All are mimalloc's,
// which tells by the block alone how it was allocated. Counting allocates nothing, since the thread's own is initialized at compile
// time and has nothing to drop.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        one_more();
        // SAFETY: mimalloc takes any size, and any alignment that a layout can have.
        let block = unsafe {
            match is_aligned_anyhow(layout.size(), layout.align()) {
                true => mi_malloc(layout.size()),
                false => mi_malloc_aligned(layout.size(), layout.align()),
            }
        };
        block.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        one_more();
        // SAFETY: as above.
        let block = unsafe {
            match is_aligned_anyhow(layout.size(), layout.align()) {
                true => mi_zalloc(layout.size()),
                false => mi_zalloc_aligned(layout.size(), layout.align()),
            }
        };
        block.cast()
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        one_more();
        // SAFETY: the caller's word: the block is from here and not given back. One that stays where it is is aligned already, another as
        // above.
        let block = unsafe {
            match is_aligned_anyhow(size, layout.align()) {
                true => mi_realloc(block.cast(), size),
                false => mi_realloc_aligned(block.cast(), size, layout.align()),
            }
        };
        block.cast()
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller's word: the block is from here and not given back.
        unsafe { mi_free(block.cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_and_each_growth_counts_and_all_are_aligned() {
        let before = count();
        for align in [1, 2, 4, 8, 16, 32, 64, 4096] {
            for size in [1, 3, 8, 15, 16, 24, 100, 5000, 100_000] {
                let layout = Layout::from_size_align(size, align).unwrap();
                let grown = Layout::from_size_align(size * 2 + 1, align).unwrap();
                let shrunk = Layout::from_size_align(1, align).unwrap();
                // SAFETY: no layout is empty; each block is grown, shrunk and given back once, with the layout that it has.
                unsafe {
                    for block in [Allocator.alloc(layout), Allocator.alloc_zeroed(layout)] {
                        assert!(block.addr().is_multiple_of(align) && !block.is_null());
                        block.write(7);
                        let block = Allocator.realloc(block, layout, grown.size());
                        assert!(block.addr().is_multiple_of(align) && block.read() == 7);
                        let block = Allocator.realloc(block, grown, 1);
                        assert!(block.addr().is_multiple_of(align) && block.read() == 7);
                        Allocator.dealloc(block, shrunk);
                    }
                }
            }
        }
        assert!(count() - before >= 8 * 9 * 6 - TOLD);
    }
}
