//! Files that one path names by a number: `frame_%05d.png`.

/// The most digits that a name is written with.
const LONGEST: usize = 20;

/// How the path of a sink names what it writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathForm {
    /// It is the path of one file.
    #[default]
    OneFile,
    /// A number in its name stands for one file each: [`NumberedFiles`].
    Numbered {
        /// How many files there will be; none where only the run tells.
        count: Option<usize>,
    },
}

impl PathForm {
    /// The files that `path` names by a number, if it does.
    pub fn files(self, path: &str) -> Option<NumberedFiles> {
        match self {
            PathForm::OneFile => None,
            PathForm::Numbered { count } => Some(NumberedFiles::of(path)?.counted(count)),
        }
    }
}

/// Files that are numbered from 0: `frame_00000.png`, `frame_00001.png`, and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberedFiles {
    /// What stands before the number: folders and the beginning of the name.
    before: String,
    /// The least number of digits; lower numbers begin with zeros.
    digits: usize,
    /// What stands behind the number.
    behind: String,
    /// How many files there are; none where only the run tells.
    count: Option<usize>,
}

impl NumberedFiles {
    /// The files that a path such as `frame_%05d.png` names; none where its name holds no number.
    pub fn of(path: &str) -> Option<Self> {
        let name = path.rfind(['/', '\\']).map_or(0, |at| at + 1);
        let (before, rest) = path[name..].split_once('%')?;
        let (digits, behind) = rest.split_once('d')?;
        let digits = match digits {
            "" => 1,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|digits| *digits <= 12)?
            }
            _ => return None,
        };
        // A second number would never be filled in.
        if Self::looks_numbered(behind) {
            return None;
        }
        let before = format!("{}{before}", &path[..name]);
        Some(NumberedFiles { before, digits, behind: behind.to_owned(), count: None })
    }

    /// Whether a name holds what was meant as a number, such as `%-3d`, whether it is one or not.
    pub fn looks_numbered(name: &str) -> bool {
        let is_form =
            |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | ' ' | '#' | '.' | '\'');
        name.split('%')
            .skip(1)
            .any(|rest| rest.trim_start_matches(is_form).starts_with(['d', 'i', 'u']))
    }

    /// The same files, of which there are so many, where that is known.
    pub fn counted(self, count: Option<usize>) -> Self {
        NumberedFiles { count, ..self }
    }

    /// What all their paths begin with.
    pub fn before(&self) -> &str {
        &self.before
    }

    /// The path of the file with this number.
    pub fn path(&self, number: usize) -> String {
        let NumberedFiles { before, digits, behind, .. } = self;
        format!("{before}{number:0digits$}{behind}")
    }

    /// Whether a path is that of one of them.
    pub fn contains(&self, path: &str) -> bool {
        let rest = path.strip_prefix(&*self.before);
        let number = rest.and_then(|rest| rest.strip_suffix(&*self.behind));
        let number = number.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        let number = number.and_then(|number| number.parse::<usize>().ok());
        let counted = number.filter(|number| self.count.is_none_or(|count| *number < count));
        counted.is_some_and(|number| self.path(number) == path)
    }

    /// Whether a file is one of these and of those.
    pub fn meets(&self, other: &NumberedFiles) -> bool {
        let (a, b) =
            if self.before.len() <= other.before.len() { (self, other) } else { (other, self) };
        let Some(more) = b.before.strip_prefix(&*a.before) else { return false };
        // For each length that the number of `a` can have: the least path that both patterns allow.
        // A digit less in either number is a lesser number, so if this one is not in both, none is.
        (a.digits.max(1)..=LONGEST).any(|digits| {
            let length = digits + a.behind.len();
            let rest = length.checked_sub(more.len() + b.behind.len());
            let Some(others) = rest.filter(|others| *others > 0) else { return false };
            let of_a = |at: usize| a.behind.as_bytes().get(at.checked_sub(digits)?);
            let of_b = |at: usize| match more.as_bytes().get(at) {
                Some(byte) => Some(byte),
                None => b.behind.as_bytes().get(at.checked_sub(more.len() + others)?),
            };
            let first =
                |at| (at == 0 && digits > a.digits) || (at == more.len() && others > b.digits);
            let free = |at| if first(at) { b'1' } else { b'0' };
            let bytes = (0..length).map(|at| *of_a(at).or(of_b(at)).unwrap_or(&free(at)));
            let path = [a.before.as_bytes(), &bytes.collect::<Vec<_>>()].concat();
            String::from_utf8(path).is_ok_and(|path| a.contains(&path) && b.contains(&path))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(path: &str, count: usize) -> NumberedFiles {
        let count = (count > 0).then_some(count);
        NumberedFiles::of(path).unwrap_or_else(|| panic!("{path}")).counted(count)
    }

    #[test]
    fn a_path_with_a_number_names_files() {
        let files = numbered("a%d/f_%03d.png", 0);
        assert_eq!([files.path(7), files.path(1234)], ["a%d/f_007.png", "a%d/f_1234.png"]);
        for (path, is) in [
            ("a%d/f_007.png", true),
            ("a%d/f_1234.png", true),
            ("a%d/f_07.png", false),
            ("a%d/f_0007.png", false),
            ("a%d/f_+07.png", false),
            ("a%d/f_.png", false),
            ("f_007.png", false),
            ("a%d/f_99999999999999999999999.png", false),
        ] {
            assert_eq!(files.contains(path), is, "{path}");
        }
        assert!(numbered("%d", 3).contains("2") && !numbered("%d", 3).contains("3"));
        for path in
            ["a.png", "a%.png", "a%xd.png", "a%99d.png", "a%d/b.png", "a%+3d.png", "%d%d.png"]
        {
            assert_eq!(NumberedFiles::of(path), None, "{path}");
        }
    }

    /// Both ways of asking, and the files themselves as far as they are few.
    #[track_caller]
    fn check(a: (&str, usize), b: (&str, usize), meet: bool) {
        let (one, two) = (numbered(a.0, a.1), numbered(b.0, b.1));
        assert_eq!([one.meets(&two), two.meets(&one)], [meet; 2], "{a:?} {b:?}");
    }

    #[test]
    fn sequences_meet_where_a_file_is_of_both() {
        check(("f_%05d.png", 0), ("f_%05d.png", 0), true);
        check(("f_%05d.png", 0), ("g_%05d.png", 0), false);
        check(("f_%05d.png", 0), ("f_%05d.webp", 0), false);
        check(("f_%05d.png", 0), ("f_%d.png", 0), true);
        check(("f_%05d.png", 0), ("f_%d.png", 10_000), false);
        check(("f_%05d.png", 10_001), ("f_%d.png", 10_001), true);
        check(("f_%d.png", 0), ("f_0%d.png", 0), false);
        check(("f_%02d.png", 0), ("f_0%d.png", 0), true);
        check(("f_%02d.png", 5), ("f_0%d.png", 5), true);
        check(("f_%d.png", 0), ("f_1%d.png", 0), true);
        check(("f_%d.png", 10), ("f_1%d.png", 10), false);
        check(("%d.png", 0), ("%d1.png", 0), true);
        check(("%d.png", 11), ("%d1.png", 11), false);
        check(("a/%d.png", 0), ("b/%d.png", 0), false);
        check(("é%d.png", 0), ("è%d.png", 0), false);
    }

    #[test]
    fn sequences_meet_just_where_their_files_do() {
        let parts = ["", "0", "1", "10", "a", "0a", "a1"];
        let all = parts.iter().flat_map(|before| parts.map(|behind| (before, behind)));
        let all: Vec<_> = all
            .flat_map(|(before, behind)| ["%d", "%02d"].map(|n| format!("{before}{n}{behind}")))
            .collect();
        let few = 120;
        let sets: Vec<_> = all
            .iter()
            .map(|path| {
                let files = numbered(path, few);
                let names: std::collections::HashSet<_> = (0..few).map(|n| files.path(n)).collect();
                (files, names)
            })
            .collect();
        let mut met = 0;
        for ((a, names), (b, others)) in sets.iter().flat_map(|a| sets.iter().map(move |b| (a, b)))
        {
            let meet = !names.is_disjoint(others);
            assert_eq!(a.meets(b), meet, "{a:?} {b:?}");
            assert!(names.iter().all(|name| b.contains(name) == others.contains(name)));
            met += usize::from(meet);
        }
        assert!(met > all.len() && met < all.len() * all.len() / 2, "{met}");
    }
}
