"""The SQL engine and the order of migrations. Tables live in the features."""
