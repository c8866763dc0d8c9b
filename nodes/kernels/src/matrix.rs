//! One product of matrices, on one thread.

use std::cell::RefCell;

/// A matrix inside a slice: where its first element stands, and its steps.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row_step: usize,
    pub(crate) column_step: usize,
}

/// dst = lhs·rhs, or dst += lhs·rhs.
///
/// `dst` is `[m, n]` with rows `dst_step` apart, `lhs` `[m, k]`, `rhs` `[k, n]`. Rows of `lhs` may
/// overlap: neighbouring pixels of a convolution do.
///
/// # Panics
/// When a matrix does not lie inside its slice.
pub(crate) fn multiply(
    [m, n, k]: [usize; 3],
    dst: &mut [f32],
    dst_step: usize,
    lhs: Matrix,
    rhs: Matrix,
    accumulate: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    let end = |rows: usize, columns: usize, steps: (usize, usize)| match rows * columns {
        0 => 0,
        _ => (rows - 1) * steps.0 + (columns - 1) * steps.1 + 1,
    };
    assert!(n <= dst_step || m == 1, "rows of the result overlap");
    assert!(end(m, n, (dst_step, 1)) <= dst.len(), "the result lies outside its slice");
    assert!(end(m, k, (lhs.row_step, lhs.column_step)) <= lhs.data.len(), "lhs outside its slice");
    assert!(end(k, n, (rhs.row_step, rhs.column_step)) <= rhs.data.len(), "rhs outside its slice");
    // SAFETY: `gemm` reads and writes exactly the elements of the three matrices, which lie inside
    // their slices (asserted above); `dst` is exclusively borrowed and its rows do not overlap.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            dst_step as isize,
            accumulate,
            lhs.data.as_ptr(),
            lhs.column_step as isize,
            lhs.row_step as isize,
            rhs.data.as_ptr(),
            rhs.column_step as isize,
            rhs.row_step as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` on a buffer of this thread; what it holds at first is left from earlier work.
pub(crate) fn with_scratch<R>(length: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    // Taken out meanwhile, so that work which comes back here gets a buffer of its own.
    let mut buffer = SCRATCH.take();
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    let result = work(&mut buffer[..length]);
    SCRATCH.set(buffer);
    result
}
