//! Non-maximum suppression: of boxes of one class that overlap, the best stays.

/// Most boxes that are compared; the worst of more are left out. The same as ultralytics' `max_nms`.
const CANDIDATES_MAX: usize = 30_000;

/// A box that a network proposes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// Left, top, right, bottom.
    pub(crate) corners: [f32; 4],
    /// 0 to 1.
    pub(crate) confidence: f32,
    /// Number of the class.
    pub(crate) class: usize,
}

/// The best `count` of the candidates, best first; of equal ones the earlier first.
pub(crate) fn best(mut candidates: Vec<Candidate>, count: usize) -> Vec<Candidate> {
    candidates.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    candidates.truncate(count);
    candidates
}

/// The best `count` of the candidates of which no two of one class overlap by more than `overlap_max` (intersection over
/// union), best first.
pub(crate) fn suppress(candidates: Vec<Candidate>, overlap_max: f32, count: usize) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in best(candidates, CANDIDATES_MAX) {
        if kept.len() == count {
            break;
        }
        let is_free = kept.iter().all(|better| {
            better.class != candidate.class || overlap(&better.corners, &candidate.corners) <= overlap_max
        });
        if is_free {
            kept.push(candidate);
        }
    }
    kept
}

/// Intersection over union; 0 for boxes without area.
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |[left, top, right, bottom]: &[f32; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
    let both = area(&[a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let either = area(a) + area(b) - both;
    if either > 0.0 { both / either } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(corners: [f32; 4], confidence: f32, class: usize) -> Candidate {
        Candidate { corners, confidence, class }
    }

    #[test]
    fn the_best_of_overlapping_boxes_of_one_class_stays() {
        let best = candidate([0.0, 0.0, 10.0, 10.0], 0.9, 0);
        let shifted = candidate([0.0, 0.0, 10.0, 6.0], 0.8, 0);
        let other_class = candidate([0.0, 0.0, 10.0, 10.0], 0.7, 1);
        let elsewhere = candidate([20.0, 0.0, 30.0, 10.0], 0.6, 0);
        let all = vec![elsewhere, other_class, shifted, best];
        assert_eq!(suppress(all.clone(), 0.45, 300), [best, other_class, elsewhere]);
        assert_eq!(suppress(all.clone(), 0.6, 300), [best, shifted, other_class, elsewhere]);
        assert_eq!(suppress(all.clone(), 0.45, 2), [best, other_class]);
        assert_eq!(suppress(all, 0.45, 0), []);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_sorted_and_apart_and_what_is_not_has_a_reason(
            boxes in prop::collection::vec((0.0f32..50.0, 0.0f32..50.0, 0.0f32..50.0, 0.0f32..50.0, 0.0f32..1.0, 0usize..3), 0..40),
            overlap_max in 0.0f32..1.0,
        ) {
            let all: Vec<_> =
                boxes.into_iter().map(|(x, y, w, h, c, class)| candidate([x, y, x + w, y + h], c, class)).collect();
            let kept = suppress(all.clone(), overlap_max, usize::MAX);
            prop_assert!(kept.is_sorted_by(|a, b| a.confidence >= b.confidence));
            let collide = |a: &Candidate, b: &Candidate| {
                a.class == b.class && overlap(&a.corners, &b.corners) > overlap_max
            };
            for (index, one) in kept.iter().enumerate() {
                prop_assert!(kept[..index].iter().all(|other| !collide(one, other)));
            }
            for one in &all {
                let has_better = kept.iter().any(|k| k.confidence >= one.confidence && collide(k, one));
                prop_assert!(kept.contains(one) || has_better);
            }
        }
    }
}
