//! All combinations.

/// All points of the product of some factors, as level indices; the last factor varies fastest. Made by [`product`].
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    levels: Vec<usize>,
    next: Option<Vec<usize>>,
}

/// All combinations of factors with these numbers of levels, one at a time: nothing is held but the next. No factors
/// give the one empty point; a factor without levels gives none.
pub fn product(levels: &[usize]) -> Product {
    let next = (!levels.contains(&0)).then(|| vec![0; levels.len()]);
    Product { levels: levels.to_vec(), next }
}

impl Product {
    /// Points in all; `None` when the number passes 2^128.
    pub fn count_all(&self) -> Option<u128> {
        if self.levels.contains(&0) {
            return Some(0);
        }
        self.levels.iter().try_fold(1u128, |n, l| n.checked_mul(*l as u128))
    }
}

impl Iterator for Product {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        let now = self.next.take()?;
        let mut next = now.clone();
        for (at, levels) in next.iter_mut().zip(&self.levels).rev() {
            *at += 1;
            if *at < *levels {
                self.next = Some(next);
                break;
            }
            *at = 0;
        }
        Some(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn points_come_in_order_and_the_last_factor_varies_fastest() {
        let all: Vec<_> = product(&[2, 3]).collect();
        assert_eq!(all, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]);
        assert_eq!(product(&[]).collect::<Vec<_>>(), [Vec::<usize>::new()]);
        assert_eq!((product(&[3, 0]).count(), product(&[3, 0]).count_all()), (0, Some(0)));
        assert_eq!(product(&[usize::MAX; 9]).count_all(), None);
        assert_eq!(product(&[usize::MAX; 9]).nth(5).map(|p| p[8]), Some(5));
    }

    proptest! {
        #[test]
        fn there_are_as_many_points_as_said_and_no_two_alike(levels in prop::collection::vec(0..5usize, 0..5)) {
            let all: Vec<_> = product(&levels).collect();
            prop_assert_eq!(all.len() as u128, product(&levels).count_all().unwrap());
            prop_assert!(all.windows(2).all(|w| w[0] < w[1]));
        }
    }
}
