//! Where whole segments lie in a stretch of text, each with the tokens in front of it that it is read with.

use std::ops::Range;

/// Whole segments in a stream of bytes. Of each the stream has the `overlap` tokens in front, too; the text's first segment has
/// nothing in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Tokens a segment, and in front of one.
    pub segment: usize,
    pub overlap: usize,
    /// Bytes of the stream in front of its first segment: none where that is the text's first.
    pub lead: usize,
    /// Bytes from a segment to the next.
    step: usize,
}

impl Cut {
    /// Segments that follow one another as in the text.
    pub fn along(segment: usize, overlap: usize, lead: usize) -> Cut {
        Cut { segment, overlap, lead, step: segment }
    }

    /// Segments of anywhere in the text, each behind the tokens in front of it.
    pub fn apart(segment: usize, overlap: usize, lead: usize) -> Cut {
        Cut { segment, overlap, lead, step: overlap + segment }
    }

    /// Where segment `number` of the stream lies with what is in front of it.
    pub fn row(&self, number: usize) -> Range<usize> {
        let behind = number * self.step + self.lead;
        behind.saturating_sub(self.overlap)..behind + self.segment
    }

    /// The stretch of the stream that holds these segments, one at least.
    pub fn stretch(&self, numbers: &Range<usize>) -> Range<usize> {
        self.row(numbers.start).start..self.row(numbers.end - 1).end
    }

    /// These segments one after another, each with what is in front of it, from their stretch of the stream.
    pub fn rows(&self, stretch: &[u8], numbers: Range<usize>) -> Vec<u8> {
        let first = self.row(numbers.start).start;
        let row = |number| &stretch[self.row(number).start - first..self.row(number).end - first];
        numbers.map(row).collect::<Vec<_>>().concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_come_with_what_is_in_front_of_them() {
        let text: Vec<u8> = (0..60).collect();
        for overlap in [0, 1, 3, 10] {
            let row = |number: usize| (number * 10usize).saturating_sub(overlap)..number * 10 + 10;
            let rows =
                |numbers: Range<usize>| numbers.flat_map(|n| text[row(n)].to_vec()).collect::<Vec<u8>>();
            // From the text's beginning, and from its second segment on.
            for (first, lead) in [(0, 0), (1, overlap)] {
                let along = Cut::along(10, overlap, lead);
                let stream = &text[first * 10 - lead..];
                for numbers in [0..1, 0..4, 1..2, 2..5] {
                    let stretch = &stream[along.stretch(&numbers)];
                    let expected = rows(numbers.start + first..numbers.end + first);
                    assert_eq!(along.rows(stretch, numbers), expected, "{overlap} from segment {first} on");
                }
                // Every other segment.
                let numbers = [first, first + 2, first + 4];
                let stream: Vec<u8> = numbers.iter().flat_map(|&n| &text[row(n.min(5))]).copied().collect();
                let apart = Cut::apart(10, overlap, lead);
                for (i, n) in numbers.into_iter().enumerate() {
                    assert_eq!(stream[apart.row(i)], text[row(n.min(5))], "{overlap} apart from {first} on");
                }
                assert_eq!(apart.rows(&stream, 0..3), stream);
            }
        }
    }
}
