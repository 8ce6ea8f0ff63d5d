"""What the tests share: a way to run coroutines on either loop, and a small bank."""
