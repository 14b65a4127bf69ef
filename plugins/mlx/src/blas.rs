//! The matrix product that MLX asks of the system's BLAS on the CPU.
//!
//! MLX's library for Linux comes with the reference BLAS, which is plain loops on one core. A library finds a function in
//! the one that loaded it before it looks among its own companions, so the plugin's `cblas_sgemm` is the one that MLX
//! calls. It computes in the crate `gemm`: all cores, with the processor's vector instructions.
#![expect(unsafe_code, reason = "the function is called from C with raw matrices")]

use gemm::Parallelism;

/// CBLAS's numbers (netlib, `cblas.h`).
const ROW_MAJOR: i32 = 101;
const NO_TRANSPOSE: i32 = 111;
/// Multiplications below which one core is quicker than two.
const PARALLEL_FROM: usize = 1 << 18;

/// `C = alpha * op(A) * op(B) + beta * C` with `op(A)` of shape m × k and `op(B)` of shape k × n.
///
/// # Safety
/// The matrices are as long as the sizes say, and `c` overlaps neither `a` nor `b`: CBLAS's own contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cblas_sgemm(
    layout: i32,
    transpose_a: i32,
    transpose_b: i32,
    m: i32,
    n: i32,
    k: i32,
    alpha: f32,
    a: *const f32,
    lda: i32,
    b: *const f32,
    ldb: i32,
    beta: f32,
    c: *mut f32,
    ldc: i32,
) {
    let size = |value: i32| usize::try_from(value).unwrap_or(0);
    // (column stride, row stride) of a matrix whose rows, or columns, are `ld` apart.
    let strides = |transpose: i32, ld: i32| {
        let is_by_row = (layout == ROW_MAJOR) == (transpose == NO_TRANSPOSE);
        if is_by_row { (1, ld as isize) } else { (ld as isize, 1) }
    };
    let (a_columns, a_rows) = strides(transpose_a, lda);
    let (b_columns, b_rows) = strides(transpose_b, ldb);
    let (c_columns, c_rows) = strides(NO_TRANSPOSE, ldc);
    let (m, n, k) = (size(m), size(n), size(k));
    let parallelism = if m.saturating_mul(n).saturating_mul(k) < PARALLEL_FROM {
        Parallelism::None
    } else {
        Parallelism::Rayon(0)
    };
    // SAFETY: the caller keeps CBLAS's contract, and the strides describe the same elements as its arguments.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
            c_columns,
            c_rows,
            beta != 0.0,
            a,
            a_columns,
            a_rows,
            b,
            b_columns,
            b_rows,
            beta,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_definition_in_every_layout() {
        let (m, n, k) = (3usize, 5usize, 4usize);
        let element =
            |row: usize, column: usize, seed: usize| ((row * 7 + column * 3 + seed) % 11) as f32 - 5.0;
        for layout in [ROW_MAJOR, 102] {
            for (transpose_a, transpose_b) in [(111, 111), (111, 112), (112, 111), (112, 112)] {
                for (alpha, beta) in [(1.0, 0.0), (0.5, 2.0)] {
                    // Each matrix with a wider leading dimension than it needs.
                    let place = |row: usize, column: usize, by_row: bool, ld: usize| {
                        if by_row { row * ld + column } else { column * ld + row }
                    };
                    let fill = |rows: usize, columns: usize, by_row: bool, seed: usize| {
                        let ld = 2 + if by_row { columns } else { rows };
                        let mut values = vec![99.0; ld * if by_row { rows } else { columns }];
                        for row in 0..rows {
                            for column in 0..columns {
                                values[place(row, column, by_row, ld)] = element(row, column, seed);
                            }
                        }
                        (values, ld)
                    };
                    let is_row = layout == ROW_MAJOR;
                    let (a, lda) = fill(m, k, is_row == (transpose_a == 111), 1);
                    let (b, ldb) = fill(k, n, is_row == (transpose_b == 111), 2);
                    let (mut c, ldc) = fill(m, n, is_row, 3);
                    // SAFETY: the matrices are made for these sizes.
                    unsafe {
                        cblas_sgemm(
                            layout,
                            transpose_a,
                            transpose_b,
                            m as i32,
                            n as i32,
                            k as i32,
                            alpha,
                            a.as_ptr(),
                            lda as i32,
                            b.as_ptr(),
                            ldb as i32,
                            beta,
                            c.as_mut_ptr(),
                            ldc as i32,
                        );
                    }
                    for row in 0..m {
                        for column in 0..n {
                            let sum: f32 = (0..k).map(|i| element(row, i, 1) * element(i, column, 2)).sum();
                            let expected = alpha * sum + beta * element(row, column, 3);
                            let found = c[place(row, column, is_row, ldc)];
                            assert!((found - expected).abs() < 1e-4, "{layout} {transpose_a} {transpose_b}");
                        }
                    }
                }
            }
        }
    }
}
