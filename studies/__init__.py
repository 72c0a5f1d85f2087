"""Study files that users run and copy, and the answers to the questions that some of them ask."""
