//! Conditions over settings, as study files write them to exclude combinations:
//! `codec == "vp8" and (fps > 60 or not threads in [1, 2])`.
//!
//! `or` binds least, then `and`, `not`, and the comparisons `==`, `!=`, `<`, `<=`, `>`, `>=` and `in [..]`. One side of a
//! comparison is a setting, the other a setting or a value. Whole numbers and others compare by value; texts and flags only
//! with `==`, `!=` and `in`.

use recording::spec::{Level, Levels};

/// Deepest nesting: far beyond what a person writes, and far from the end of a stack.
const MAX_DEPTH: usize = 64;
/// Longest list: each point is compared with all of it.
const MAX_LIST: usize = 1_000;

/// A condition that is true or false of the settings of a point.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition(Node);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    Compare(Operand, Order, Operand),
    In(Operand, Vec<Level>),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Setting(String),
    Value(Level),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Unequal,
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// Why a text is no condition: what is wrong, and at which byte of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionFault {
    /// What is wrong.
    pub wrong: String,
    /// Where, from 0.
    pub at: usize,
    /// A setting that is not known.
    pub unknown: Option<String>,
}

impl Condition {
    /// Reads a condition over settings of these names.
    ///
    /// # Errors
    /// It is none, or a setting is unknown.
    pub fn parse(text: &str, known: &dyn Fn(&str) -> bool) -> Result<Self, ConditionFault> {
        let mut parser = Parser { tokens: tokens(text)?, next: 0, end: text.len(), known };
        let node = parser.any(0)?;
        match parser.peek() {
            None => Ok(Self(node)),
            Some(_) => Err(parser.fault("`and`, `or` or the end is expected here")),
        }
    }

    /// Whether it is true of these settings. `None` when that depends on a setting that is not among them.
    pub fn of(&self, settings: &Levels) -> Option<bool> {
        of(&self.0, settings)
    }
}

fn of(node: &Node, settings: &Levels) -> Option<bool> {
    let value = |operand: &Operand| match operand {
        Operand::Setting(name) => settings.get(name).cloned(),
        Operand::Value(level) => Some(level.clone()),
    };
    // True (false) as soon as one part is; open when no part decides and one is open.
    let first = |nodes: &[Node], decides: bool| {
        let mut whole = Some(!decides);
        for node in nodes {
            match of(node, settings) {
                Some(part) if part == decides => return Some(decides),
                Some(_) => {}
                None => whole = None,
            }
        }
        whole
    };
    match node {
        Node::Any(nodes) => first(nodes, true),
        Node::All(nodes) => first(nodes, false),
        Node::Not(node) => of(node, settings).map(|is| !is),
        Node::In(operand, levels) => {
            let value = value(operand)?;
            Some(levels.iter().any(|level| equal(&value, level)))
        }
        Node::Compare(left, order, right) => {
            let (left, right) = (value(left)?, value(right)?);
            let numbers = left.as_f64().zip(right.as_f64());
            Some(match order {
                Order::Equal => equal(&left, &right),
                Order::Unequal => !equal(&left, &right),
                Order::Below => numbers.is_some_and(|(a, b)| a < b),
                Order::AtMost => numbers.is_some_and(|(a, b)| a <= b),
                Order::Above => numbers.is_some_and(|(a, b)| a > b),
                Order::AtLeast => numbers.is_some_and(|(a, b)| a >= b),
            })
        }
    }
}

fn equal(a: &Level, b: &Level) -> bool {
    match a.as_f64().zip(b.as_f64()) {
        Some((a, b)) => a == b,
        None => a == b,
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Value(Level),
    Sign(&'static str),
}

const SIGNS: [&str; 11] = ["==", "!=", "<=", ">=", "<", ">", "(", ")", "[", "]", ","];

fn tokens(text: &str) -> Result<Vec<(Token, usize)>, ConditionFault> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let fault = |wrong: String, at| Err(ConditionFault { wrong, at, unknown: None });
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let length = if c.is_whitespace() {
            c.len_utf8()
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            tokens.push((Token::Sign(sign), at));
            sign.len()
        } else if c == '"' || c == '\'' {
            let Some(end) = rest[1..].find(c) else { return fault("the text does not end".into(), at) };
            tokens.push((Token::Value(Level::Text(rest[1..=end].into())), at));
            end + 2
        } else if c.is_ascii_digit() || c == '-' || c == '.' {
            let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
            let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
            let number = &rest[..end];
            let level = match (number.parse::<i64>(), number.parse::<f64>()) {
                (Ok(n), _) => Level::Int(n),
                (_, Ok(x)) if x.is_finite() => Level::Float(x),
                _ => return fault(format!("`{number}` is no number"), at),
            };
            tokens.push((Token::Value(level), at));
            end
        } else if c.is_alphabetic() || c == '_' {
            let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
            let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
            tokens.push(match &rest[..end] {
                "true" => (Token::Value(Level::Bool(true)), at),
                "false" => (Token::Value(Level::Bool(false)), at),
                word => (Token::Word(word.into()), at),
            });
            end
        } else {
            return fault(format!("`{c}` is not understood"), at);
        };
        at += length;
    }
    Ok(tokens)
}

struct Parser<'k> {
    tokens: Vec<(Token, usize)>,
    next: usize,
    end: usize,
    known: &'k dyn Fn(&str) -> bool,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(token, _)| token)
    }

    fn fault(&self, wrong: &str) -> ConditionFault {
        let at = self.tokens.get(self.next).map_or(self.end, |(_, at)| *at);
        ConditionFault { wrong: wrong.into(), at, unknown: None }
    }

    fn takes(&mut self, wanted: &Token) -> bool {
        let found = self.peek() == Some(wanted);
        self.next += usize::from(found);
        found
    }

    fn word(&mut self, word: &str) -> bool {
        self.takes(&Token::Word(word.into()))
    }

    fn any(&mut self, depth: usize) -> Result<Node, ConditionFault> {
        let mut nodes = vec![self.all(depth)?];
        while self.word("or") {
            nodes.push(self.all(depth)?);
        }
        Ok(if nodes.len() > 1 { Node::Any(nodes) } else { nodes.remove(0) })
    }

    fn all(&mut self, depth: usize) -> Result<Node, ConditionFault> {
        let mut nodes = vec![self.one(depth)?];
        while self.word("and") {
            nodes.push(self.one(depth)?);
        }
        Ok(if nodes.len() > 1 { Node::All(nodes) } else { nodes.remove(0) })
    }

    fn one(&mut self, depth: usize) -> Result<Node, ConditionFault> {
        if depth > MAX_DEPTH {
            return Err(self.fault("this is nested too deeply"));
        }
        if self.word("not") {
            return Ok(Node::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.takes(&Token::Sign("(")) {
            let node = self.any(depth + 1)?;
            if !self.takes(&Token::Sign(")")) {
                return Err(self.fault("`)` is expected here"));
            }
            return Ok(node);
        }
        let begin = self.next;
        let left = self.operand()?;
        if self.word("in") {
            return Ok(Node::In(left, self.list()?));
        }
        let orders = [
            ("==", Order::Equal),
            ("!=", Order::Unequal),
            ("<=", Order::AtMost),
            (">=", Order::AtLeast),
            ("<", Order::Below),
            (">", Order::Above),
        ];
        let Some((_, order)) = orders.into_iter().find(|(sign, _)| self.takes(&Token::Sign(sign))) else {
            return Err(self.fault("a comparison is expected here: == != < <= > >= in"));
        };
        let right = self.operand()?;
        if let (Operand::Value(_), Operand::Value(_)) = (&left, &right) {
            self.next = begin;
            return Err(self.fault("neither side is a setting"));
        }
        Ok(Node::Compare(left, order, right))
    }

    fn operand(&mut self) -> Result<Operand, ConditionFault> {
        match self.peek().cloned() {
            Some(Token::Value(level)) => {
                self.next += 1;
                Ok(Operand::Value(level))
            }
            Some(Token::Word(name)) if (self.known)(&name) => {
                self.next += 1;
                Ok(Operand::Setting(name))
            }
            Some(Token::Word(name)) => {
                let fault = self.fault(&format!("there is no setting `{name}`; a text stands in quotes"));
                Err(ConditionFault { unknown: Some(name), ..fault })
            }
            _ => Err(self.fault("a setting or a value is expected here")),
        }
    }

    fn list(&mut self) -> Result<Vec<Level>, ConditionFault> {
        if !self.takes(&Token::Sign("[")) {
            return Err(self.fault("a list is expected here, such as [1, 2]"));
        }
        let mut levels = Vec::new();
        loop {
            match self.peek().cloned() {
                Some(Token::Value(level)) => levels.push(level),
                _ => return Err(self.fault("a value is expected here")),
            }
            self.next += 1;
            if self.takes(&Token::Sign("]")) {
                return Ok(levels);
            }
            if levels.len() >= MAX_LIST {
                return Err(self.fault("this list is too long"));
            }
            if !self.takes(&Token::Sign(",")) {
                return Err(self.fault("`,` or `]` is expected here"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn known(name: &str) -> bool {
        ["codec", "fps", "threads", "fast"].contains(&name)
    }

    fn settings() -> Levels {
        [
            ("codec".into(), Level::Text("vp8".into())),
            ("fps".into(), Level::Int(60)),
            ("threads".into(), Level::Float(2.0)),
            ("fast".into(), Level::Bool(true)),
        ]
        .into()
    }

    #[test]
    fn conditions_are_what_they_say() {
        for (text, expected) in [
            ("codec == \"vp8\"", true),
            ("codec != 'vp8'", false),
            ("fps > 30 and fps <= 60", true),
            ("fps > 60 or threads == 2", true),
            ("not fps >= 60", false),
            ("threads in [1, 2]", true),
            ("codec in ['h264', 'vp9']", false),
            ("fast == true and not (codec == 'h264' or fps < 30)", true),
            ("fps < threads", false),
            ("codec < 3", false),
            ("fps == 60.0", true),
            ("codec == 'h264' and fps == 1 or fps == 60", true),
        ] {
            assert_eq!(Condition::parse(text, &known).unwrap().of(&settings()), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_depends_on_a_setting_that_is_not_there_is_open() {
        let some: Levels = [("fps".into(), Level::Int(60))].into();
        for (text, expected) in [
            ("codec == 'vp8'", None),
            ("not codec == 'vp8'", None),
            ("codec == 'vp8' or fps > 30", Some(true)),
            ("codec == 'vp8' and fps < 30", Some(false)),
            ("codec == 'vp8' and fps > 30", None),
            ("threads in [1]", None),
        ] {
            assert_eq!(Condition::parse(text, &known).unwrap().of(&some), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_told_with_its_place() {
        for (text, wrong, at) in [
            ("", "a setting or a value is expected here", 0),
            ("fps", "a comparison is expected here: == != < <= > >= in", 3),
            ("fps = 3", "`=` is not understood", 4),
            ("fsp > 3", "there is no setting `fsp`; a text stands in quotes", 0),
            ("codec == vp8", "there is no setting `vp8`; a text stands in quotes", 9),
            ("(fps > 3", "`)` is expected here", 8),
            ("fps in 3", "a list is expected here, such as [1, 2]", 7),
            ("1 < 2", "neither side is a setting", 0),
            ("fps > 3 fps < 9", "`and`, `or` or the end is expected here", 8),
            ("codec == 'vp8", "the text does not end", 9),
        ] {
            let fault = Condition::parse(text, &known).unwrap_err();
            assert_eq!((fault.wrong.as_str(), fault.at), (wrong, at), "{text}");
        }
        let deep = format!("{}fps > 1{}", "(".repeat(1000), ")".repeat(1000));
        assert_eq!(Condition::parse(&deep, &known).unwrap_err().wrong, "this is nested too deeply");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(fps|codec| |and|or|not|in|[-0-9.<>=!()\\[\\],'\"ä])*") {
            if let Ok(condition) = Condition::parse(&text, &known) {
                condition.of(&settings());
            }
        }
    }
}
