DROP TRIGGER views_trend ON views;
DROP FUNCTION add_to_trend();
DROP TABLE trend_totals;
