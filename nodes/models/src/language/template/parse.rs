//! Tokens to a tree: the statements and expressions of Jinja that chat templates use.

use super::lex::{Piece, Token, pieces};

/// Blocks in blocks at most, and brackets in brackets.
const DEEPEST: usize = 32;
/// Operators, filters, calls of one expression at most.
const MOST_OPERATIONS: usize = 500;

/// An expression.
#[derive(Debug)]
pub(super) enum Expr<'t> {
    Text(String),
    Int(i64),
    Real(f64),
    Var(&'t str),
    List(Vec<Expr<'t>>),
    Map(Vec<(Expr<'t>, Expr<'t>)>),
    Attr(Box<Expr<'t>>, &'t str),
    Index(Box<Expr<'t>>, Box<Expr<'t>>),
    Slice(Box<Expr<'t>>, [Option<Box<Expr<'t>>>; 3]),
    Call(Box<Expr<'t>>, Args<'t>),
    Filter(Box<Expr<'t>>, &'t str, Args<'t>),
    Test(Box<Expr<'t>>, &'t str, Args<'t>),
    Not(Box<Expr<'t>>),
    Negative(Box<Expr<'t>>),
    Binary(&'static str, Box<Expr<'t>>, Box<Expr<'t>>),
    And(Box<Expr<'t>>, Box<Expr<'t>>),
    Or(Box<Expr<'t>>, Box<Expr<'t>>),
    If(Box<Expr<'t>>, Box<Expr<'t>>, Option<Box<Expr<'t>>>),
}

/// What a call is given: by place, and by name.
#[derive(Debug, Default)]
pub(super) struct Args<'t> {
    pub(super) by_place: Vec<Expr<'t>>,
    pub(super) by_name: Vec<(&'t str, Expr<'t>)>,
}

/// A macro: parameters with their defaults.
#[derive(Debug)]
pub(super) struct Macro<'t> {
    pub(super) name: &'t str,
    pub(super) parameters: Vec<(&'t str, Option<Expr<'t>>)>,
    pub(super) body: Vec<Node<'t>>,
}

/// A statement.
#[derive(Debug)]
pub(super) enum Node<'t> {
    Text(&'t str),
    Output(Expr<'t>),
    If(Vec<(Option<Expr<'t>>, Vec<Node<'t>>)>),
    For {
        targets: Vec<&'t str>,
        items: Expr<'t>,
        only: Option<Expr<'t>>,
        body: Vec<Node<'t>>,
        otherwise: Vec<Node<'t>>,
    },
    /// A name, or an attribute of a namespace.
    Set(&'t str, Option<&'t str>, Expr<'t>),
    SetBlock(&'t str, Vec<Node<'t>>),
    Macro(Macro<'t>),
    Break,
    Continue,
}

type Parsed<T> = Result<T, String>;

/// Parses a template.
///
/// # Errors
/// When it is none, or has a statement that is not read.
pub(super) fn parse(source: &str) -> Parsed<Vec<Node<'_>>> {
    let mut template = Template { pieces: pieces(source)?.into_iter(), depth: 0 };
    let (nodes, end) = template.nodes(&[])?;
    match end {
        None => Ok(nodes),
        Some((name, _)) => Err(format!("`{name}` ends nothing")),
    }
}

struct Template<'t> {
    pieces: std::vec::IntoIter<Piece<'t>>,
    depth: usize,
}

/// What a sequence of nodes ended with: the name of the block, and its other tokens.
type End<'t> = Option<(&'t str, Tokens<'t>)>;

impl<'t> Template<'t> {
    /// Nodes up to a block of one of these names, or the end of the template.
    fn nodes(&mut self, until: &[&str]) -> Parsed<(Vec<Node<'t>>, End<'t>)> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("blocks lie in blocks more than {DEEPEST} deep"));
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            match piece {
                Piece::Text(text) => nodes.push(Node::Text(text)),
                Piece::Output(tokens) => nodes.push(Node::Output(Tokens::new(tokens).whole()?)),
                Piece::Block(tokens) => {
                    let mut tokens = Tokens::new(tokens);
                    let name = tokens.name()?;
                    if until.contains(&name) {
                        self.depth -= 1;
                        return Ok((nodes, Some((name, tokens))));
                    }
                    self.statement(name, tokens, &mut nodes)?;
                }
            }
        }
        self.depth -= 1;
        match until {
            [] => Ok((nodes, None)),
            [.., last] => Err(format!("`{last}` is missing")),
        }
    }

    /// Nodes up to the block of this name, which has nothing else in it.
    fn body(&mut self, end: &str) -> Parsed<Vec<Node<'t>>> {
        Ok(self.nodes(&[end])?.0)
    }

    fn statement(
        &mut self,
        name: &str,
        mut tokens: Tokens<'t>,
        nodes: &mut Vec<Node<'t>>,
    ) -> Parsed<()> {
        nodes.push(match name {
            "if" => {
                let mut branches = Vec::new();
                let mut condition = Some(tokens.whole()?);
                loop {
                    let until: &[&str] = match condition {
                        Some(_) => &["elif", "else", "endif"],
                        None => &["endif"],
                    };
                    let (body, end) = self.nodes(until)?;
                    branches.push((condition, body));
                    condition = match end {
                        Some(("elif", mut tokens)) => Some(tokens.whole()?),
                        Some(("else", _)) => None,
                        _ => break,
                    };
                }
                Node::If(branches)
            }
            "for" => {
                let mut targets = vec![tokens.name()?];
                while tokens.takes(",") {
                    targets.push(tokens.name()?);
                }
                tokens.keyword("in")?;
                let items = tokens.or()?;
                let only = if tokens.takes_name("if") { Some(tokens.or()?) } else { None };
                tokens.end()?;
                let (body, end) = self.nodes(&["else", "endfor"])?;
                let otherwise = match end {
                    Some(("else", _)) => self.body("endfor")?,
                    _ => Vec::new(),
                };
                Node::For { targets, items, only, body, otherwise }
            }
            "set" => {
                let target = tokens.name()?;
                let attribute = if tokens.takes(".") { Some(tokens.name()?) } else { None };
                match tokens.takes("=") {
                    true => Node::Set(target, attribute, tokens.whole()?),
                    false => {
                        tokens.end()?;
                        Node::SetBlock(target, self.body("endset")?)
                    }
                }
            }
            "macro" => {
                let name = tokens.name()?;
                tokens.expect("(")?;
                let mut parameters = Vec::new();
                while !tokens.takes(")") {
                    let parameter = tokens.name()?;
                    let default = if tokens.takes("=") { Some(tokens.expr()?) } else { None };
                    parameters.push((parameter, default));
                    if !tokens.takes(",") {
                        tokens.expect(")")?;
                        break;
                    }
                }
                Node::Macro(Macro { name, parameters, body: self.body("endmacro")? })
            }
            // A mark of transformers for training: what is inside stands as it is.
            "generation" => {
                nodes.append(&mut self.body("endgeneration")?);
                return Ok(());
            }
            "break" => Node::Break,
            "continue" => Node::Continue,
            other => return Err(format!("the block `{other}` is not read")),
        });
        Ok(())
    }
}

struct Tokens<'t> {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token<'t>>>,
    operations: usize,
    depth: usize,
}

impl<'t> Tokens<'t> {
    fn new(tokens: Vec<Token<'t>>) -> Self {
        Tokens { tokens: tokens.into_iter().peekable(), operations: 0, depth: 0 }
    }

    fn takes(&mut self, op: &str) -> bool {
        self.tokens.next_if(|token| matches!(token, Token::Op(own) if *own == op)).is_some()
    }

    fn takes_name(&mut self, name: &str) -> bool {
        self.tokens.next_if(|token| matches!(token, Token::Name(own) if *own == name)).is_some()
    }

    fn expect(&mut self, op: &str) -> Parsed<()> {
        if self.takes(op) { Ok(()) } else { Err(format!("expected `{op}`{}", self.found())) }
    }

    fn keyword(&mut self, name: &str) -> Parsed<()> {
        if self.takes_name(name) {
            Ok(())
        } else {
            Err(format!("expected `{name}`{}", self.found()))
        }
    }

    fn found(&mut self) -> String {
        match self.tokens.peek() {
            None => ", found the end of the expression".to_owned(),
            Some(Token::Name(name)) => format!(", found `{name}`"),
            Some(Token::Op(op)) => format!(", found `{op}`"),
            Some(_) => ", found a value".to_owned(),
        }
    }

    fn name(&mut self) -> Parsed<&'t str> {
        match self.tokens.next_if(|token| matches!(token, Token::Name(_))) {
            Some(Token::Name(name)) => Ok(name),
            _ => Err(format!("expected a name{}", self.found())),
        }
    }

    fn end(&mut self) -> Parsed<()> {
        match self.tokens.peek() {
            None => Ok(()),
            Some(_) => Err(format!("expected the end of the block{}", self.found())),
        }
    }

    /// An expression that is all that is left.
    fn whole(&mut self) -> Parsed<Expr<'t>> {
        let expr = self.expr()?;
        self.end()?;
        Ok(expr)
    }

    /// Counts what makes a tree deeper.
    fn operation(&mut self) -> Parsed<()> {
        self.operations += 1;
        match self.operations > MOST_OPERATIONS {
            true => Err(format!("an expression has more than {MOST_OPERATIONS} operations")),
            false => Ok(()),
        }
    }

    fn expr(&mut self) -> Parsed<Expr<'t>> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("brackets lie in brackets more than {DEEPEST} deep"));
        }
        let mut expr = self.or()?;
        while self.takes_name("if") {
            self.operation()?;
            let condition = Box::new(self.or()?);
            let otherwise =
                if self.takes_name("else") { Some(Box::new(self.expr()?)) } else { None };
            expr = Expr::If(condition, Box::new(expr), otherwise);
        }
        self.depth -= 1;
        Ok(expr)
    }

    fn or(&mut self) -> Parsed<Expr<'t>> {
        let mut left = self.and()?;
        while self.takes_name("or") {
            self.operation()?;
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed<Expr<'t>> {
        let mut left = self.not()?;
        while self.takes_name("and") {
            self.operation()?;
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Parsed<Expr<'t>> {
        let mut negations = 0;
        while self.takes_name("not") {
            self.operation()?;
            negations += 1;
        }
        let mut expr = self.compared()?;
        for _ in 0..negations {
            expr = Expr::Not(Box::new(expr));
        }
        Ok(expr)
    }

    fn compared(&mut self) -> Parsed<Expr<'t>> {
        let mut left = self.sum()?;
        loop {
            let op = match self.tokens.peek() {
                Some(Token::Op(op @ ("==" | "!=" | "<" | "<=" | ">" | ">="))) => *op,
                Some(Token::Name("in")) => "in",
                Some(Token::Name("not")) => "not in",
                _ => return Ok(left),
            };
            self.tokens.next();
            self.operation()?;
            if op == "not in" {
                self.keyword("in")?;
            }
            left = Expr::Binary(op, Box::new(left), Box::new(self.sum()?));
        }
    }

    /// Operators of one level, the left ones first.
    fn chain(
        &mut self,
        ops: &[&'static str],
        operand: impl Fn(&mut Self) -> Parsed<Expr<'t>>,
    ) -> Parsed<Expr<'t>> {
        let mut left = operand(self)?;
        while let Some(op) = ops.iter().find(|op| self.takes(op)) {
            self.operation()?;
            left = Expr::Binary(*op, Box::new(left), Box::new(operand(self)?));
        }
        Ok(left)
    }

    fn sum(&mut self) -> Parsed<Expr<'t>> {
        self.chain(&["+", "-"], |own| {
            own.chain(&["~"], |own| own.chain(&["*", "//", "/", "%"], Self::unary))
        })
    }

    fn unary(&mut self) -> Parsed<Expr<'t>> {
        let mut negatives = 0;
        while self.takes("-") {
            self.operation()?;
            negatives += 1;
        }
        let mut expr = self.primary()?;
        expr = self.postfix(expr)?;
        for _ in 0..negatives {
            expr = Expr::Negative(Box::new(expr));
        }
        self.filtered(expr)
    }

    fn primary(&mut self) -> Parsed<Expr<'t>> {
        match self.tokens.next() {
            Some(Token::Text(mut text)) => {
                // Texts beside each other are one.
                while let Some(Token::Text(more)) =
                    self.tokens.next_if(|token| matches!(token, Token::Text(_)))
                {
                    text += &more;
                }
                Ok(Expr::Text(text))
            }
            Some(Token::Int(number)) => Ok(Expr::Int(number)),
            Some(Token::Real(number)) => Ok(Expr::Real(number)),
            Some(Token::Name(name)) => Ok(Expr::Var(name)),
            Some(Token::Op("(")) => {
                let expr = self.expr()?;
                if self.takes(",") {
                    let mut items = self.items(")")?;
                    items.insert(0, expr);
                    return Ok(Expr::List(items));
                }
                self.expect(")")?;
                Ok(expr)
            }
            Some(Token::Op("[")) => Ok(Expr::List(self.items("]")?)),
            Some(Token::Op("{")) => {
                let mut entries = Vec::new();
                while !self.takes("}") {
                    let key = self.expr()?;
                    self.expect(":")?;
                    entries.push((key, self.expr()?));
                    if !self.takes(",") {
                        self.expect("}")?;
                        break;
                    }
                }
                Ok(Expr::Map(entries))
            }
            Some(Token::Op(op)) => Err(format!("`{op}` stands where a value is expected")),
            None => Err("an expression ends where a value is expected".to_owned()),
        }
    }

    /// Expressions up to a bracket.
    fn items(&mut self, end: &str) -> Parsed<Vec<Expr<'t>>> {
        let mut items = Vec::new();
        while !self.takes(end) {
            items.push(self.expr()?);
            if !self.takes(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(items)
    }

    /// Attributes, places and calls behind a value.
    fn postfix(&mut self, mut expr: Expr<'t>) -> Parsed<Expr<'t>> {
        loop {
            if self.takes(".") {
                self.operation()?;
                expr = match self.tokens.next_if(|token| matches!(token, Token::Int(_))) {
                    Some(Token::Int(at)) => Expr::Index(Box::new(expr), Box::new(Expr::Int(at))),
                    _ => Expr::Attr(Box::new(expr), self.name()?),
                };
            } else if self.takes("[") {
                self.operation()?;
                expr = self.place(expr)?;
            } else if self.takes("(") {
                self.operation()?;
                expr = Expr::Call(Box::new(expr), self.args()?);
            } else {
                return Ok(expr);
            }
        }
    }

    /// `[index]` or `[start:end:step]`, behind the bracket.
    fn place(&mut self, of: Expr<'t>) -> Parsed<Expr<'t>> {
        let mut parts: [Option<Box<Expr<'t>>>; 3] = [None, None, None];
        let mut colons = 0;
        loop {
            if self.takes("]") {
                break;
            }
            if self.takes(":") {
                colons += 1;
                if colons > 2 {
                    return Err("a slice has more than three parts".to_owned());
                }
            } else if parts[colons].is_some() {
                return Err(format!("expected `]`{}", self.found()));
            } else {
                parts[colons] = Some(Box::new(self.expr()?));
            }
        }
        let of = Box::new(of);
        match (colons, parts) {
            (0, [Some(index), ..]) => Ok(Expr::Index(of, index)),
            (0, _) => Err("expected an index, found `]`".to_owned()),
            (_, parts) => Ok(Expr::Slice(of, parts)),
        }
    }

    /// What a call is given, behind its bracket.
    fn args(&mut self) -> Parsed<Args<'t>> {
        let mut args = Args::default();
        while !self.takes(")") {
            let value = self.expr()?;
            match value {
                Expr::Var(name) if self.takes("=") => args.by_name.push((name, self.expr()?)),
                value => args.by_place.push(value),
            }
            if !self.takes(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(args)
    }

    /// Filters and tests behind a value.
    fn filtered(&mut self, mut expr: Expr<'t>) -> Parsed<Expr<'t>> {
        loop {
            if self.takes("|") {
                self.operation()?;
                let name = self.name()?;
                let args = if self.takes("(") { self.args()? } else { Args::default() };
                expr = self.postfix(Expr::Filter(Box::new(expr), name, args))?;
            } else if self.takes_name("is") {
                self.operation()?;
                let is_not = self.takes_name("not");
                let name = match self.takes_name("in") {
                    true => "in",
                    false => self.name()?,
                };
                let mut args = Args::default();
                if self.takes("(") {
                    args = self.args()?;
                } else if self.begins_argument() {
                    let argument = self.primary()?;
                    args.by_place.push(self.postfix(argument)?);
                }
                expr = Expr::Test(Box::new(expr), name, args);
                if is_not {
                    expr = Expr::Not(Box::new(expr));
                }
            } else {
                return Ok(expr);
            }
        }
    }

    /// Whether the argument of a test follows, which needs no brackets.
    fn begins_argument(&mut self) -> bool {
        match self.tokens.peek() {
            Some(Token::Name(name)) => {
                !["else", "or", "and", "is", "if", "in", "not"].contains(name)
            }
            Some(Token::Op(op)) => ["[", "{"].contains(op),
            Some(_) => true,
            None => false,
        }
    }
}
