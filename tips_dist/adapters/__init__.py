"""The judge in other people's frameworks: each module needs its library, and nothing else imports it."""
