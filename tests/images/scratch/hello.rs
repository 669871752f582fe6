//! The only program of the scratch image: prints its words, and ends with the exit code given
//! after `--exit`.

fn main() {
    let mut words = Vec::new();
    let mut code = 0;
    let mut args = std::env::args().skip(1);
    while let Some(word) = args.next() {
        if word == "--exit" {
            code = args.next().and_then(|n| n.parse().ok()).unwrap_or(2);
        } else {
            words.push(word);
        }
    }
    let words = if words.is_empty() {
        "from an image with nothing in it".to_owned()
    } else {
        words.join(" ")
    };
    println!("hello {words}");
    std::process::exit(code);
}
